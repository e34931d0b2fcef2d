"""Axial 2D rotary position embedding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from visionpe.encodings.rotary.base import RotaryEncoding
from visionpe.ranges import check_base
from visionpe.registry import register_encoding


def axial_frequencies(theta: float, axes: int, pairs: int, device: torch.device | None = None) -> Tensor:
    """Radians a token along each axis, ``(axes, 1, pairs)``: each axis has pairs of its own."""
    bands = pairs // axes
    magnitudes = theta ** (-torch.arange(bands, device=device, dtype=torch.float32) / bands)
    freqs = torch.zeros(axes, 1, pairs, device=device)
    for axis in range(axes):
        freqs[axis, 0, axis * bands : (axis + 1) * bands] = magnitudes
    return freqs


@register_encoding("rope_axial")
class AxialRoPE(RotaryEncoding):
    """The first half of the channel pairs turns with the column, the second with the row; no parameters.

    Source: "Rotary Position Embedding for Vision Transformer", eq. 6 and 7: of the ``head_dim / 4`` pairs an axis,
    pair i turns by ``theta ** (-4 i / head_dim)`` radians a token. On three axes a third of the pairs each; pairs
    left over do not turn.

    Args:
        theta: Base of the frequencies; 100 in the paper's ViT, 50 in its Swin.
        context: See :class:`~visionpe.base.PositionEncoding`.

    Raises:
        ValueError: If the head dimension is no multiple of 4.
    """

    source = "RoPE-ViT, arXiv 2403.13298"
    irregular = True

    def __init__(self, *, theta: float = 100.0, **context: Any) -> None:
        super().__init__(**context)
        self.theta = check_base("theta", theta)

    def frequencies(self, layer: int, device: torch.device) -> Tensor:
        return axial_frequencies(self.theta, len(self.grid_size), self.head_dim // 2, device)

    def extra_repr(self) -> str:
        return f"theta={self.theta}, {super().extra_repr()}"
