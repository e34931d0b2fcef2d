"""The name by which timm builds an adapted model again: ``adapted``, with the name of the original as a keyword."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.models import PretrainedCfg, load_pretrained, register_model
from timm.models._features import FeatureGetterNet

from visionpe.backbones.adapt.adapted import ARCHITECTURE
from visionpe.backbones.adapt.adapting import adapt, adapt_or_say, may_adapt
from visionpe.backbones.adapt.originals import build_original
from visionpe.backbones.adapt.stacked import fit_blocks
from visionpe.backbones.shared.registering import FeatureGetter
from visionpe.checks import shown
from visionpe.policy.apply import build_policy

__all__: list[str] = []
# Of a saved model's configuration, what the original must be built with.
FROM_CFG = ("num_classes", "global_pool")


@register_model
def adapted(
    pretrained: bool = False,
    *,
    original: str | None = None,
    pos_encoding: Any = None,
    policy: Any = None,
    features_only: bool = False,
    out_indices: Any = None,
    feature_cls: Any = None,
    or_original: bool = False,
    **kwargs: Any,
) -> Any:
    """A model of timm's, adapted: ``timm.create_model("adapted", original="vit_small_patch16_dinov3")``.

    timm writes this name beside the weights of adapted models (``save_for_hf``), and so finds them again.

    Args:
        pretrained: Load weights: those of the original, or the adapted ones where timm found a model saved after it
            had been adapted (``local-dir:``, ``hf-hub:``).
        original: Name of the model in timm.
        pos_encoding, policy: See :func:`visionpe.adapt`.
        features_only, out_indices: As everywhere in timm.
        feature_cls: None or ``getter``, the same.
        or_original: Give a model that cannot be adapted as timm builds it, unless ``pos_encoding`` is asked for;
            its features by timm's ``feature_cls="getter"``.
        kwargs: Of the original.

    Raises:
        ValueError: If ``original`` is missing, or ``feature_cls`` another.
        TypeError: If its class is none that can be adapted.
    """
    check_feature_class(feature_cls)
    if not isinstance(original, str) or not original:
        raise ValueError(
            f"original={original!r}: {ARCHITECTURE!r} needs the name of a model of timm's; allowed: a name"
        )
    cfg, overlay = kwargs.pop("pretrained_cfg", None), kwargs.pop("pretrained_cfg_overlay", None)
    kwargs.pop("pretrained_model_args", None)
    known_of = cfg.to_dict() if isinstance(cfg, PretrainedCfg) else cfg
    saved = known_of if isinstance(known_of, Mapping) and known_of.get("source") in ("hf-hub", "local-dir") else None
    if saved is None:
        given = {"pretrained_cfg": cfg, "pretrained_cfg_overlay": overlay}
        kwargs |= {key: value for key, value in given.items() if value is not None}
        if or_original and pos_encoding is None:
            model = _adapted_or_none(original, pretrained, kwargs)
            if model is None:
                features = {"features_only": True, "feature_cls": "getter"} if features_only else {}
                indices = {} if out_indices is None else {"out_indices": out_indices}
                model = build_original(original, pretrained=pretrained, **kwargs, **features, **indices)
                return model if policy is None else build_policy(model, policy)
        else:
            model = adapt(build_original(original, pretrained=pretrained, **kwargs), pos_encoding=pos_encoding)
    else:
        known = {key: saved[key] for key in FROM_CFG if saved.get(key) is not None}
        channels = {"in_chans": saved["input_size"][0]} if saved.get("input_size") else {}
        built = build_original(original, pretrained=False, **{**known, **channels, **kwargs})
        model = adapt(built, pos_encoding=pos_encoding)
        model.pretrained_cfg = model.default_cfg = {**saved, **(overlay or {}), "architecture": ARCHITECTURE}
        if pretrained:
            load_pretrained(
                model,
                pretrained_cfg=model.pretrained_cfg,
                num_classes=model.num_classes,
                in_chans=kwargs.get("in_chans", channels.get("in_chans", 3)),
                filter_fn=_of_features if features_only else None,
            )
    if policy is not None:
        build_policy(model, policy)
    if not features_only:
        return model
    wanted = model.default_out_indices if out_indices is None else out_indices
    return as_features(model, wanted)


def check_feature_class(feature_cls: Any) -> None:
    """Refuse extractors of features that take single modules out of the model.

    Raises:
        ValueError: If it is one.
    """
    if feature_cls not in (None, "getter", FeatureGetterNet):
        raise ValueError(f"feature_cls={shown(feature_cls)} cannot hand positions on; allowed: None, 'getter'")


def _adapted_or_none(original: str, pretrained: bool, kwargs: Mapping[str, Any]) -> Any:
    """The adapted model, or None where it cannot be adapted; most of those are not even built."""
    if not may_adapt(original):
        return None
    model, why_not = adapt_or_say(build_original(original, pretrained=pretrained, **kwargs))
    return None if why_not else model


def _of_features(state: dict[str, Any], model: Any) -> dict[str, Any]:
    """A file of features alone, with what these do not need from the model; any other file as it is."""
    if not all(key.startswith("model.") for key in state):
        return state
    return {
        **model.state_dict(),
        **fit_blocks({key.removeprefix("model."): value for key, value in state.items()}, model),
    }


def as_features(model: Any, out_indices: Any) -> FeatureGetterNet:
    """timm's extractor of features around a model."""
    whole = model.state_dict().keys()
    features = FeatureGetter(model, out_indices=out_indices)
    model.cut_keys = whole - model.state_dict().keys()
    cfg = {**model.pretrained_cfg, "num_classes": 0}
    features.pretrained_cfg = features.default_cfg = cfg
    return features
