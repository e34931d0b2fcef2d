"""Do heads look for objects at the strides that maps have?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from visionpe.detection.models.features import TimmFeatures
from visionpe.detection.models.simple_pyramid import SimpleFeaturePyramid


def _extended(strides: Sequence[int], count: int) -> list[int]:
    """With further levels, each of every second cell of the one before."""
    out = list(strides)[:count]
    while len(out) < count:
        out.append(out[-1] * 2)
    return out


def neck_strides(neck: Any, strides: Sequence[int]) -> list[int] | None:
    """Strides of the maps that a neck gives; None for necks of which nothing is known.

    Args:
        neck: The module, or None where there is none.
        strides: Of the backbone's maps, pixels.
    """
    if neck is None:
        return list(strides)
    if isinstance(neck, SimpleFeaturePyramid):
        return _extended([round(strides[-1] / scale) for scale in neck.scales], neck.num_outs)
    kinds = {kind.__name__ for kind in type(neck).__mro__}
    if "FPN" in kinds:
        used = strides[neck.start_level : neck.backbone_end_level]
        return _extended(used, neck.num_outs)
    return None


def _wanted(model: nn.Module) -> Iterator[tuple[str, list[int], bool]]:
    """Where heads say which strides they expect, finest first, and whether they read every map that there is."""
    for name, module in model.named_modules():
        parts, key, given = name.split("."), "featmap_strides", None
        if parts[0] == "roi_head" and ("bbox_roi_extractor" in parts or "mask_roi_extractor" in parts):
            given = getattr(module, key, None)
        elif name in ("rpn_head", "bbox_head"):
            key, given = "strides", getattr(getattr(module, "prior_generator", None), "strides", None)
        if isinstance(given, Sequence) and not isinstance(given, str):
            pairs = [tuple(each) if isinstance(each, Sequence) else (each, each) for each in given]
            if pairs and all(len(pair) == 2 and pair[0] == pair[1] for pair in pairs):
                # Extractors and FCOS's kin leave out the maps beyond their strides; heads of anchors fail there.
                passes = next(kind.__name__ for kind in type(module).__mro__ if "forward" in vars(kind))
                yield f"{name}.{key}", [int(pair[0]) for pair in pairs], passes == "AnchorHead"


def check_strides(model: nn.Module) -> None:
    """Compare the strides that heads expect with those of the maps that they get: others find nothing, without a word.

    Args:
        model: A detector with a :class:`~visionpe.detection.TimmFeatures`; others pass, and so do necks other than FPN,
            :class:`~visionpe.detection.SimpleFeaturePyramid` and none.

    Raises:
        ValueError: If they differ; names the part, what it expects and what it would get.
    """
    backbone: Any = getattr(model, "backbone", None)
    if not isinstance(backbone, TimmFeatures) or not all(isinstance(stride, int) for stride in backbone.strides):
        return
    given = neck_strides(getattr(model, "neck", None), [int(stride) for stride in backbone.strides])
    for name, wanted, all_maps in _wanted(model) if given else ():
        if wanted != (given if all_maps else given[: len(wanted)]):  # type: ignore[index]
            raise ValueError(
                f"{name}={wanted} does not fit: {backbone.model_name!r} with out_indices={backbone.out_indices} makes "
                f"maps of strides {given}; allowed here: these, or other out_indices or num_outs"
            )
