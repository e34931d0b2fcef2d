"""Building and freezing the timm model inside a backbone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import lcm
from numbers import Integral
from typing import Any

import timm
from timm.models import group_parameters, model_entrypoint
from timm.models._features import FeatureGetterNet
from torch import nn

from visionpe.checks import check_choice, check_count, check_counts, check_flag
from visionpe.detection.models.feature_norms import UNKNOWN, FeatureNorms
from visionpe.ranges import MAX_DEPTH

# timm's keywords for models that otherwise insist on one size; the first that a model takes is given to it.
ANY_SIZE = ("dynamic_img_size", "strict_img_size")
# And to pyramids that take it: the dense code of Swin's and of CSWin's authors has a norm for each map.
NORMS = {"feature_norms": True}
OUTPUT_STRIDES = (8, 16, 32)  # that timm's convolutional networks know


def wanted_indices(out_indices: Any) -> int | tuple[int, ...]:
    """``out_indices`` as timm takes them: the last n, or a tuple.

    Raises:
        TypeError, ValueError: If they are neither a whole number above 0 nor whole numbers.
    """
    if isinstance(out_indices, Integral) and not isinstance(out_indices, bool):
        return check_count("out_indices", out_indices, 1, MAX_DEPTH)
    return check_counts("out_indices", out_indices, None, -MAX_DEPTH, MAX_DEPTH - 1)


def asked_of_timm(model_name: str, kwargs: Mapping[str, Any], *, adapt: bool) -> dict[str, Any]:
    """Keywords of ``timm.create_model``: a model of timm's own is asked for by way of the one that adapts it.

    Args:
        model_name: As timm registers it.
        kwargs: Further keywords.
        adapt: False leaves all as it is.
    """
    if not adapt or ":" in model_name or not model_entrypoint(model_name.split(".")[0]).__module__.startswith("timm."):
        return {"model_name": model_name, **kwargs}
    return {"model_name": "adapted", "original": model_name, "or_original": True, **kwargs}


def create_extractor(
    model_name: str,
    out_indices: int | tuple[int, ...],
    pretrained: bool,
    kwargs: Mapping[str, Any],
    *,
    adapt: bool = True,
    final_norm: bool = False,
) -> Any:
    """Build timm's feature extractor, for any size of images where the model knows how.

    Args:
        model_name: Name for ``timm.create_model``.
        out_indices: Stages or blocks whose features are wanted; one number for so many of the last.
        pretrained: Load the weights that timm knows.
        kwargs: Further keywords for ``timm.create_model``; ``feature_norms`` goes to any model: one that has no norms
            of its features gets them.
        adapt: Adapt models of timm's that can be.
        final_norm: Keep the norm behind the last stage, for all features.

    Returns:
        timm's extractor: its ``model`` is cut down to what the features need, its ``feature_info`` describes them.

    Raises:
        ValueError: If an index or ``output_stride`` is out of range, or the model has no ``forward_intermediates``.
    """
    if "output_stride" in kwargs:
        check_choice("output_stride", kwargs["output_stride"], OUTPUT_STRIDES)
    asked = asked_of_timm(model_name, kwargs, adapt=adapt)
    options: dict[str, Any] = {"features_only": True, "feature_cls": "getter", "out_indices": out_indices}
    sizes = [*({name: name == "dynamic_img_size"} for name in ANY_SIZE if name not in kwargs), {}]
    norm_options = ({},) if final_norm else (NORMS, {})
    attempts = [norms | size for norms in norm_options if norms.keys().isdisjoint(kwargs) for size in sizes]
    for attempt in attempts:
        try:
            if final_norm:  # which extractors of timm's registry drop
                whole = timm.create_model(pretrained=pretrained, **{**attempt, **asked})
                getter = FeatureGetterNet(whole, out_indices=out_indices, norm=True)
            else:
                getter = timm.create_model(pretrained=pretrained, **{**options, **attempt, **asked})
        except TypeError as error:
            if "feature_norms" in kwargs and UNKNOWN in str(error):
                plain = {key: value for key, value in kwargs.items() if key != "feature_norms"}
                getter = create_extractor(
                    model_name, out_indices, pretrained, plain, adapt=adapt, final_norm=final_norm
                )
                if check_flag("feature_norms", kwargs["feature_norms"]):
                    info = getter.feature_info
                    getter.model.norms = FeatureNorms(info.channels(), info.out_indices)
                return getter
            if not any(name in str(error) for name in attempt):
                raise
        except ValueError as error:
            # Ours call it by the name that their forward pass has.
            if str(error).startswith("indices="):
                raise ValueError(f"out_{error}") from None
            raise
        except AssertionError as error:
            given = {"out_indices": out_indices} | {key: kwargs[key] for key in ("output_stride",) if key in kwargs}
            stated = ", ".join(f"{key}={value}" for key, value in given.items())
            raise ValueError(f"{model_name!r} with {stated}: {str(error) or 'timm does not take these'}") from None
        else:
            break
    if not hasattr(getattr(getter, "model", None), "forward_intermediates"):
        raise ValueError(f"model_name={model_name!r} has no forward_intermediates, which gives the features")
    return getter


def _patch(network: Any) -> tuple[int, int] | None:
    """Height and width of the patches that a model cuts images into, if it does."""
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    sides = (patch,) * 2 if isinstance(patch, int) else tuple(patch or ())
    return (sides[0], sides[1]) if len(sides) == 2 else None


def axis_strides(network: Any, reductions: Sequence[int]) -> list[tuple[int, int]]:
    """Strides of the features along each axis; timm tells the larger ones alone, where patches are not square."""
    patch = _patch(network)
    if patch is None or patch[0] == patch[1]:
        return [(stride, stride) for stride in reductions]
    return [(stride * patch[0] // max(patch), stride * patch[1] // max(patch)) for stride in reductions]


def size_divisor(network: Any, strides: Sequence[tuple[int, int]]) -> int:
    """Return the pixels that the sides of images must be a multiple of, for features at ``strides``."""
    patch, finest = _patch(network), min(strides)
    # Patches that overlap (PVT) are larger than the steps between them.
    if patch is not None and not any(step % side for step, side in zip(finest, patch)):
        return lcm(*patch)
    return lcm(*(max(steps) for steps in zip(*strides)))


def freeze(network: Any, model_name: str, stages: int) -> list[nn.Module]:
    """Take the gradients of the first stages.

    Args:
        network: A timm model.
        model_name: Its name, for messages.
        stages: -1 for none, 0 for the stem, n for the stem and the first n stages, by ``group_matcher``.

    Returns:
        The modules to keep in evaluation mode.

    Raises:
        ValueError: If there are fewer stages, or the model does not tell them.
    """
    if stages < 0:
        return []
    if not hasattr(network, "group_matcher"):
        raise ValueError(f"frozen_stages={stages} needs a model with group_matcher; {model_name!r} has none")
    layers = group_parameters(network, network.group_matcher(coarse=True), reverse=True)
    last = max(layers.values(), default=0)
    if stages > last:
        raise ValueError(f"frozen_stages={stages} is too much for {model_name!r}; allowed: -1 to {last}")
    for name, parameter in network.named_parameters():
        if layers[name] <= stages:
            parameter.requires_grad_(False)
    return list(_without_gradients(network))


def _without_gradients(module: nn.Module) -> Iterator[nn.Module]:
    """The topmost modules of which all parameters are frozen."""
    flags = [parameter.requires_grad for parameter in module.parameters()]
    if flags and not any(flags):
        yield module
    elif flags:
        for child in module.children():
            yield from _without_gradients(child)
