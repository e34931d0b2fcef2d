"""Rotary embedding of one position alone: the number of a token in the order of reading."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor

from visionpe.encodings.rotary.base import RotaryEncoding
from visionpe.encodings.rotary.tables import rotation_table
from visionpe.grid import Grid
from visionpe.ranges import check_base
from visionpe.registry import register_encoding


@register_encoding("rope_raster")
class RasterRoPE(RotaryEncoding):
    """All pairs turn with ``n = width y + x``, as rotary embedding of a sequence does; no parameters.

    Source: "RMT: Retentive Networks Meet Vision Transformers", arXiv 2309.11523, whose code takes the angles of RetNet
    (arXiv 2307.08621): of P pairs, pair i turns by ``theta ** (-i / (P - 1))`` radians a token, from 1 to 1 / theta.
    It is relative: a step down turns as ``width`` steps to the right do. On three axes n counts frame after frame.

    Args:
        theta: Base of the frequencies.
        context: See :class:`~visionpe.encodings.rotary.base.RotaryEncoding`. ``extrapolate``, as published, counts the
            tokens of the map at hand, so that a step down turns further on a wider one; ``interpolate`` stretches the
            axes over the trained map and counts there; ``rescale(a)`` lies between. Policies that change frequencies
            take the number of all tokens for the length. Layout ``axis_half`` has no axes to split here.

    Raises:
        ValueError: If the head dimension is odd, or ``layout`` is ``axis_half``.
    """

    source = "RMT, arXiv 2309.11523"
    channels = 2

    def __init__(self, *, theta: float = 10000.0, **context: Any) -> None:
        super().__init__(**context)
        self.theta = check_base("theta", theta)
        if self.layout == "axis_half":
            raise ValueError(
                "layout='axis_half': all pairs of rope_raster turn with one index; allowed: adjacent, half"
            )

    def frequencies(self, layer: int, device: torch.device) -> Tensor:
        steps = torch.linspace(0, 1, self.head_dim // 2, device=device, dtype=torch.float32)
        return (1 / self.theta**steps)[None, None]  # (1, 1, pairs): one band, whatever the axes

    def lengths(self, grid: Grid) -> list[tuple[Any, int, float]]:
        return [(prod(grid.size), prod(self.grid_size), prod(self.units(grid)))]

    def _rotation_at(self, freqs: Tensor, grid: Grid) -> Tensor:
        self.check_axes(grid)
        freqs = self._turning(self._adapted(freqs, grid), grid)
        first, *others = self.coordinates(grid, freqs.device, freqs.dtype)
        index, spans = first, self.scaled(grid.size, grid)  # type: ignore[arg-type]
        for p, n in zip(others, spans[1:]):  # what an axis spans is scaled as its positions are
            index = (index[:, None] * n + p).flatten() if grid.dense else index * n + p
        along = Grid((index.shape[0],), grid.prefix) if grid.dense else grid
        return rotation_table([index], freqs, along, self.layout)

    def extra_repr(self) -> str:
        return f"theta={self.theta}, {super().extra_repr()}"
