"""How much of an image a config's test pipeline shows: ``crop_pct`` of timm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Of mmpretrain, mmcv and torchvision; with a scope before them or without.
RESIZES = ("ResizeEdge", "Resize")
CROPS = ("CenterCrop",)


def _shorter(step: Mapping[str, Any]) -> int | None:
    """The shorter side that a step leaves, pixels; None where it does not say."""
    for key in ("scale", "crop_size", "size"):
        value = step.get(key)
        if isinstance(value, int):
            return value
        if isinstance(value, Sequence) and value and all(isinstance(side, int) for side in value):
            return min(value)
    return None


def crop_share(pipeline: Sequence[Mapping[str, Any]] | None) -> float | None:
    """The share of the resized image that a test pipeline keeps.

    Args:
        pipeline: Of the config.

    Returns:
        Side of the crop over that of the resized image, 0 to 1; 1 where nothing is cut; None where it neither resizes
        nor cuts, or does not say.
    """
    resized = cut = None
    for step in pipeline or ():
        kind = str(step.get("type", "")).rpartition("/")[2].rpartition(".")[2]
        if kind in RESIZES:
            resized = _shorter(step)
        elif kind in CROPS:
            cut = _shorter(step)
    if resized is None:
        return None
    return 1.0 if cut is None else min(1.0, round(cut / resized, 4))
