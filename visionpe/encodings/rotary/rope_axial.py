"""Axial 2D rotary position embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from visionpe.checks import check_choice, check_counts
from visionpe.encodings.rotary.base import GridIndexing, RotaryEncoding
from visionpe.ranges import MAX_DIM, check_base
from visionpe.registry import register_encoding


def frequency_ladder(theta: float, steps: int, device: torch.device | None = None) -> Tensor:
    """``theta ** (-i / steps)``, fastest first; computed as published, to the last bit."""
    return 1 / theta ** (torch.arange(steps, device=device, dtype=torch.float32) / steps)


def axial_frequencies(theta: float, axes: int, pairs: int, device: torch.device | None = None) -> Tensor:
    """Radians a token along each axis, ``(axes, 1, pairs)``: each axis has pairs of its own."""
    bands = pairs // axes
    magnitudes = frequency_ladder(theta, bands, device)
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
        grid_indexing: ``xy`` as said; ``ij``: the first pairs turn with the row, the last with the column.
        mrope_section: Pairs of time, row and column that take turns instead, as in Qwen's interleaved M-RoPE: of all
            pairs, at ``theta ** (-2 i / head_dim)`` each, 1, 4, 7, ... below 3 times the second number turn with the
            row, 2, 5, 8, ... below 3 times the third with the column, and the rest with time, or not at all on two
            axes. Its weights are half-split.
        context: See :class:`~visionpe.encodings.rotary.base.RotaryEncoding`.

    Raises:
        ValueError: If the head dimension is no multiple of 4, or ``mrope_section`` is given on other than two or three
            axes, with columns first, or with layout ``axis_half``, as its axes have no chunks.
    """

    source = "RoPE-ViT, arXiv 2403.13298"
    irregular = True

    def __init__(
        self,
        *,
        theta: float = 100.0,
        grid_indexing: GridIndexing = "xy",
        mrope_section: Sequence[int] | None = None,
        **context: Any,
    ) -> None:
        super().__init__(**context)
        self.theta = check_base("theta", theta)
        check_choice("grid_indexing", grid_indexing, GridIndexing)
        self.grid_indexing = grid_indexing
        self.mrope_section = mrope_section
        if mrope_section is not None:
            self.mrope_section = check_counts("mrope_section", mrope_section, 3, 0, MAX_DIM)
            self._check_mrope()

    def _check_mrope(self) -> None:
        for option, value, allowed in (
            ("grid_size", self.grid_size, "2 or 3 axes" if len(self.grid_size) not in (2, 3) else ""),
            ("grid_indexing", repr(self.grid_indexing), "'ij'" if self.grid_indexing != "ij" else ""),
            ("layout", repr(self.layout), "'half', 'adjacent'" if self.layout == "axis_half" else ""),
        ):
            if allowed:
                raise ValueError(
                    f"{option}={value} with mrope_section, whose pairs of time, row and column take turns; "
                    f"allowed: {allowed}"
                )

    def frequencies(self, layer: int, device: torch.device) -> Tensor:
        axes, pairs = len(self.grid_size), self.head_dim // 2
        if self.mrope_section is None:
            freqs = axial_frequencies(self.theta, axes, pairs, device)
            return freqs.flip(0) if self.grid_indexing == "ij" else freqs
        freqs = torch.zeros(3, 1, pairs, device=device)  # x, y, time
        for axis, first in ((1, 1), (0, 2)):
            turn = slice(first, 3 * self.mrope_section[2 - axis], 3)
            freqs[axis, 0, turn] = 1
        freqs[2] = 1 - freqs[:2].sum(0)
        return freqs[:axes] * frequency_ladder(self.theta, pairs, device)

    def slowest_pairs(self, freqs: Tensor, share: float) -> Tensor:
        if self.mrope_section is None:
            return super().slowest_pairs(freqs, share)
        turning = freqs.ne(0).any(1)  # (axes, pairs)
        count = turning.sum(-1, keepdim=True)
        return (turning & (turning.cumsum(-1) > count - (share * count).round())).any(0)

    def extra_repr(self) -> str:
        return f"theta={self.theta}, {super().extra_repr()}"
