"""Image sizes: how they are given, and the one a model was trained at."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from torch import nn

from visionpe.checks import shown
from visionpe.ranges import MAX_PIXELS

Size = tuple[int, int]  # height, width in pixels


def as_size(value: Any, name: str = "size") -> Size:
    """``224``, ``(384, 512)`` or ``"384x512"`` as height and width, pixels.

    Raises:
        ValueError: If it is none of these, or not above zero.
    """
    allowed = f"224, (384, 512) or '384x512', pixels above 0, up to {MAX_PIXELS}"
    refusal = ValueError(f"{name}={shown(value)} is no image size; allowed: {allowed}")
    try:
        sides = [int(part) for part in value.split("x")] if isinstance(value, str) else value
        if isinstance(sides, Integral):
            sides = (sides,)
        height, width = (sides[0], sides[-1]) if len(sides) in (1, 2) else (0, 0)
        size = int(height), int(width)
    except (TypeError, ValueError, OverflowError, KeyError):
        raise refusal from None
    if (
        min(size) < 1
        or max(size) > MAX_PIXELS
        or size != (height, width)
        or isinstance(height, bool)
        or isinstance(width, bool)
    ):
        raise refusal
    return size


def trained_size(model: nn.Module) -> Size:
    """Height and width at which a model was trained, pixels: as it says itself, or as its patch embedding was built.

    Else as timm's ``pretrained_cfg`` tells.

    Raises:
        ValueError: If the model tells neither.
    """
    embed = getattr(model, "patch_embed", None) or getattr(model, "stem", None)  # of ViTs; of MLP-Mixers
    built = getattr(model, "trained_img_size", None) or getattr(embed, "img_size", None)
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None) or {}
    size = built or config.get("input_size")
    if size is None:
        raise ValueError(f"{type(model).__name__} does not tell the size it was trained at; give it as trained=224")
    return as_size(size if isinstance(size, int) else tuple(size)[-2:], "img_size")
