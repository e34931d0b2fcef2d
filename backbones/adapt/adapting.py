"""From a model of timm's to the same model with encodings of this package."""

from __future__ import annotations

from typing import Any

from timm.models import model_entrypoint
from timm.models._features import FeatureGetterNet
from torch import nn

from visionpe.backbones.adapt.adapted import ADAPTED, ARCHITECTURE, Adapted, combined
from visionpe.backbones.adapt.checking import check_known, check_model
from visionpe.backbones.adapt.sharing import shared_copy
from visionpe.backbones.shared.loading import LoadsPublished
from visionpe.backbones.shared.registering import FeatureGetter
from visionpe.policy.apply import build_policy, policies
from visionpe.policy.images import put_before
from visionpe.policy.selection import DOWNSCALE
from visionpe.registry import Spec
from visionpe.utils.errors import first_line

# Arguments of timm's extractors of features, and not of the model inside.
OF_FEATURES = ("features_only", "out_indices")


def adapt(model: nn.Module, *, pos_encoding: Spec | None = None, policy: str | None = None) -> Any:
    """The same model with its positions as encodings: at any size, under any policy, with any other encoding.

    At the trained size outputs are those of the original. The original stays as it is, and both share all weights but
    those of positions: to train one leaves the other trained too. Every method of timm's stays (``forward_features``,
    ``forward_intermediates``, ``reset_classifier``, ``set_grad_checkpointing``, ...), and so do the keys of the state
    dict, but for positions; a state dict of the original loads as well.

    Example::

        model = timm.create_model("vit_base_patch16_dinov3.lvd1689m", pretrained=True)
        model = visionpe.adapt(model)
        visionpe.set_policy(model, "yarn")
        model(torch.rand(1, 3, 768, 1024))

    Args:
        model: As ``timm.create_model`` gives it, with ``features_only=True`` too.
        pos_encoding: None keeps the positions that it has, with their weights. ``"+alibi"`` adds to them. Any other
            specification (see :func:`visionpe.create_encoding`) takes their place, ``"none"`` nothing; its parameters
            are new, and all other weights are kept.
        policy: What to do at sizes that were not trained, see :func:`visionpe.set_policy`. Default: as timm does,
            where it does anything.

    Returns:
        A new model. ``visionpe.policies`` tells its policies.

    Raises:
        TypeError: If it is no model of a class of timm's whose positions are known, or was adapted, compiled, scripted
            or quantised before.
        ValueError: If modules in it have hooks, or ``pos_encoding`` or ``policy`` is unknown or cannot work here.
    """
    if isinstance(model, FeatureGetterNet):
        check_model(model)
        return _adapt_features(model, pos_encoding, policy)
    if isinstance(model, Adapted):
        raise TypeError("model is adapted already; allowed: the original, or visionpe.set_policy(model, ...)")
    if isinstance(model, LoadsPublished):
        raise TypeError(
            f"model is a {type(model).__name__} of this package, whose positions are encodings already; allowed: "
            "pos_encoding=... in timm.create_model, or visionpe.set_policy(model, ...)"
        )
    check_model(model)
    check_known(model, ADAPTED)
    kind = ADAPTED[type(model)]
    spec = combined(kind, model, pos_encoding)
    adapted: Any = shared_copy(model)
    adapted.__class__ = kind
    adapted.remember(spec, pos_encoding)
    adapted.take_over(spec)
    if DOWNSCALE not in policies(adapted) and (size := adapted.trained_pixels()) is not None:
        adapted.trained_img_size = size
        put_before(adapted, adapted.sees_images, size)
    adapted.take_weights(model)
    adapted.train(model.training)
    return adapted if policy is None else build_policy(adapted, policy)


def _adapt_features(features: Any, pos_encoding: Spec | None, policy: str | None) -> Any:
    """timm's extractor of features around the adapted model."""
    inner = adapt(features.model, pos_encoding=pos_encoding, policy=policy)
    other: Any = shared_copy(features)
    other.model = inner
    given = other.__dict__.pop("_model_args", {})  # timm notes them, and traits, at what it gives
    inner._traits = {**other.__dict__.pop("_traits", {}), **getattr(inner, "_traits", {})}
    inner.given_arguments = {key: value for key, value in given.items() if key not in OF_FEATURES}
    other.__class__ = FeatureGetter
    other._model_args = {key: value for key, value in given.items() if key in OF_FEATURES}
    cfg = {**(features.__dict__.get("pretrained_cfg") or {}), "architecture": ARCHITECTURE}
    other.pretrained_cfg = other.default_cfg = cfg
    return other


def may_adapt(name: str) -> bool:
    """Whether it is worth building a model of timm's: nothing states that its class is another."""
    if ":" in name:  # of a hub or a folder: nobody knows before
        return True
    entry = model_entrypoint(name.split(".")[0])
    stated = entry.__annotations__.get("return")
    return stated in ADAPTED if isinstance(stated, type) else entry.__module__ in {k.__module__ for k in ADAPTED}


def adapt_or_say(model: nn.Module) -> tuple[Any, str]:
    """The adapted model and nothing to say, or the model as it is and why it cannot be adapted."""
    try:
        return adapt(model), ""
    except (TypeError, ValueError) as error:
        return model, first_line(error, 160)
