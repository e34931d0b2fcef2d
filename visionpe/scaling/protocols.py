"""The protocols by which one image becomes an input of any size.

*object*: the image is resized to the resolution, so that the objects in it grow or shrink.
*canvas*: the image keeps the pixel size it has at the trained resolution and is placed at random on a larger canvas of
background; below that size its centre is cut out.
*native*: the image keeps its aspect ratio and is resized to as many patches as the resolution has, at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from visionpe.scaling.sizes import Size


def place(image: Tensor, size: Size, seed: int, index: int, fill: float = 0.0) -> Tensor:
    """Put an image on a canvas without touching its pixels.

    Args:
        image: ``(C, h, w)``.
        size: Height and width of the canvas, pixels. An axis on which the image is larger is cut at its centre.
        seed, index: Of the run and of the image: they alone decide the relative place, so every model, policy and
            resolution sees the same one.
        fill: Background.

    Returns:
        ``(C, height, width)``.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
    across = torch.rand(2, generator=generator).tolist()
    canvas = image.new_full((image.shape[0], *size), fill)
    inside: list[slice] = []
    source: list[slice] = []
    for axis, fraction in enumerate(across):
        have, want = image.shape[axis + 1], size[axis]
        if have > want:
            start = (have - want) // 2
            inside.append(slice(0, want))
            source.append(slice(start, start + want))
        else:
            start = int(fraction * (want - have + 1))
            inside.append(slice(start, start + have))
            source.append(slice(0, have))
    canvas[:, inside[0], inside[1]] = image[:, source[0], source[1]]
    return canvas


class ViewSpec:
    """How one model wants its images.

    Args:
        trained: Height and width at which the model was trained, pixels.
        channels: Input channels, 1 or 3.
        mean, std: Per channel (or one for all), in 0..255.
        crop: Share of the resized image that the central crop keeps (``crop_pct`` of timm); folders only.
        interpolation: Of the resizing in timm's evaluation transform; folders only.
        seed: Decides the places on the canvas.
        patch: Height and width of a patch, pixels, for the native protocol.
    """

    def __init__(
        self,
        *,
        trained: Size,
        channels: int = 3,
        mean: Sequence[float],
        std: Sequence[float],
        crop: float = 1.0,
        interpolation: str = "bicubic",
        seed: int = 0,
        patch: Size | None = None,
    ) -> None:
        self.trained, self.channels, self.seed = trained, channels, seed
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self.crop, self.interpolation = crop, interpolation
        self.patch = patch

    def key(self) -> dict[str, Any]:
        """Everything that decides the pixels, ready for JSON."""
        what = {**vars(self), "trained": list(self.trained), "mean": list(self.mean), "std": list(self.std)}
        if self.patch is None:
            del what["patch"]
        return what

    def normalise(self, image: Tensor) -> Tensor:
        """``(C, h, w)`` in 0..255 to zero mean and unit deviation, in the model's number of channels."""
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (image.expand(self.channels, -1, -1) - mean) / std
