"""Features of a model as maps, as colours, and how alike patches are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from visionpe.viewing.modes import evaluating


@torch.no_grad()
def feature_maps(
    model: nn.Module, images: Tensor, layers: int | Sequence[int] | None = None, *, norm: bool = True
) -> list[Tensor]:
    """Features after blocks or stages, as maps.

    Args:
        model: Any of timm's or ours with ``forward_intermediates``, or one that gives maps (``features_only``, a
            detection backbone). It runs in evaluation mode and is left as it was.
        images: ``(B, C, height, width)``, normalised, where the model is.
        layers: The last n if an int, these if a sequence (negative ones from the end), all if None.
        norm: Apply the model's final norm where it fits: :func:`normed`.

    Returns:
        ``(B, channels, height, width)`` each, float32.

    Raises:
        ValueError: If the model gives no maps, or has no such ``layers``.
    """
    with evaluating(model):
        if hasattr(model, "forward_intermediates"):
            maps = model.forward_intermediates(images, indices=layers, intermediates_only=True)  # type: ignore[operator]
        else:
            maps = _chosen(model(images), layers)
    if not maps or not all(isinstance(each, Tensor) and each.ndim == 4 for each in maps):
        raise ValueError(
            f"model={type(model).__name__} gives no maps; allowed: forward_intermediates, or maps as its outputs"
        )
    return [normed(model, each.float()) if norm else each.float() for each in maps]


@torch.no_grad()
def normed(model: nn.Module, maps: Tensor) -> Tensor:
    """Maps ``(B, channels, height, width)`` after the final norm of a model, which its head sees.

    They stay as they are where the model has no layer norm of that many channels: before the last stage of a pyramid,
    or in a ViT that norms what it has pooled.
    """
    norm = getattr(model, "norm", None)
    if not isinstance(norm, nn.LayerNorm) or tuple(norm.normalized_shape) != maps.shape[1:2]:
        return maps
    return nn.LayerNorm.forward(norm, maps.movedim(1, -1).to(norm.weight.dtype)).movedim(-1, 1).float()


def _chosen(maps: Any, layers: int | Sequence[int] | None) -> list[Tensor]:
    """Those asked for, of what a model gives at once."""
    maps = list(maps) if isinstance(maps, (list, tuple)) else [maps]
    if layers is None:
        return maps
    wanted = range(len(maps) - layers, len(maps)) if isinstance(layers, int) else layers
    if not all(-len(maps) <= index < len(maps) for index in wanted):
        raise ValueError(f"layers={layers!r}: the model gives {len(maps)} maps; allowed: 0 to {len(maps) - 1}")
    return [maps[index] for index in wanted]


@dataclass(frozen=True)
class ColourBasis:
    """Three directions of features that stand for red, green and blue, the same for every map that is coloured by them.

    Attributes:
        mean: ``(channels,)``.
        directions: ``(3, channels)``, orthonormal, by falling variance; signs so that the largest entry is positive.
        low, high: ``(3,)``, what is black and what is full.
        explained: ``(3,)``, shares of the variance, 0 to 1.
    """

    mean: Tensor
    directions: Tensor
    low: Tensor
    high: Tensor
    explained: Tensor

    @classmethod
    def fit(cls, maps: Tensor | Sequence[Tensor], *, clip: float = 0.02) -> ColourBasis:
        """The principal components of features.

        Args:
            maps: ``(B, channels, height, width)``, or several of any size, which count by their number of patches.
            clip: Share of the patches beyond each end of the scale, 0 to below 0.5.

        Raises:
            ValueError: If ``maps`` have fewer than four patches or three channels, or ``clip`` is no such share.
        """
        if not 0 <= clip < 0.5:
            raise ValueError(f"clip={clip!r} is no share; allowed: 0 to below 0.5")
        tokens = torch.cat([_tokens(each) for each in ([maps] if isinstance(maps, Tensor) else maps)]).double()
        if tokens.shape[0] < 4 or tokens.shape[1] < 3:
            raise ValueError(
                f"maps: {tokens.shape[0]} patches of {tokens.shape[1]} channels; allowed: 4 patches and 3 channels up"
            )
        mean = tokens.mean(0)
        spread, directions = torch.linalg.eigh((tokens - mean).mT @ (tokens - mean) / len(tokens))
        directions = directions.flip(1)[:, :3].mT  # (3, channels)
        largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
        directions = directions * largest.sign()
        scores = (tokens - mean) @ directions.mT
        some = scores[torch.linspace(0, len(scores) - 1, min(len(scores), 100_000)).long()]  # quantile takes no more
        ends = torch.quantile(some, some.new_tensor([clip, 1 - clip]), dim=0)
        explained = spread.flip(0)[:3].clamp_min(0) / spread.clamp_min(0).sum().clamp_min(1e-300)
        return cls(*(each.float() for each in (mean, directions, ends[0], ends[1], explained)))

    def colours(self, maps: Tensor) -> np.ndarray:
        """Maps ``(B, channels, height, width)`` as RGB, ``(B, height, width, 3)``, uint8."""
        scores = (_tokens(maps) - self.mean) @ self.directions.mT
        shades = ((scores - self.low) / (self.high - self.low).clamp_min(1e-12)).clamp(0, 1)
        pixels = (shades * 255).round().to(torch.uint8).reshape(len(maps), *maps.shape[2:], 3)
        return pixels.cpu().numpy()


def _tokens(maps: Tensor) -> Tensor:
    """``(B, channels, height, width)`` to ``(B height width, channels)``."""
    return maps.movedim(1, -1).flatten(0, -2)


def similarity(maps: Tensor, patch: tuple[int, int], *, other: Tensor | None = None) -> Tensor:
    """How alike patches are to one of them: cosine of their features.

    Args:
        maps: ``(B, channels, height, width)``.
        patch: ``(row, column)``.
        other: Maps of the same model whose patches are compared with it, of any size; by default ``maps``.

    Returns:
        ``(B, height, width)``, -1 to 1.

    Raises:
        ValueError: If there is no such ``patch``.
    """
    row, column = patch
    if not (0 <= row < maps.shape[2] and 0 <= column < maps.shape[3]):
        raise ValueError(f"patch={patch!r} is none; allowed: (row, column) in {maps.shape[2]} x {maps.shape[3]}")
    among = maps if other is None else other
    return torch.cosine_similarity(maps[:, :, row, column, None, None], among, dim=1)
