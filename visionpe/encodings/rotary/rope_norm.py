"""Axial rotary position embedding on normalised coordinates."""

from __future__ import annotations

from functools import reduce
from math import pi
from typing import Any, Literal

import torch
from torch import Tensor

from visionpe.checks import check_choice
from visionpe.encodings.rotary.base import GridIndexing, RotaryEncoding
from visionpe.encodings.rotary.pairs import Layout
from visionpe.grid import Grid
from visionpe.policy.functions.positions import effective_length
from visionpe.ranges import check_base
from visionpe.registry import register_encoding
from visionpe.tracing import larger, smaller

Normalize = Literal["separate", "max", "min"]


@register_encoding("rope_norm")
class NormalizedRoPE(RotaryEncoding):
    """Coordinates from -1 to 1 across the image; the first band of pairs turns with the row, the next with the column.

    Source: DINOv3, section 3.2 (with RoPE-box jittering) and its published code. Token i of n stands at
    ``2 (i + 0.5) / n - 1``; a pair turns by ``2 pi coordinate / period``. Each axis has the periods ``base ** (i /
    bands)``, or ``bands`` of them from ``min_period`` to ``max_period`` at equal ratios; no parameters.

    It is trained with coordinates that move at random: ``shift_coords``, ``jitter_coords``, ``rescale_coords``.

    Args:
        base: Of the periods; 100 if no range is given.
        min_period, max_period: Shortest and longest period in units of the coordinates; both, and then no ``base``.
        normalize_coords: What an axis is divided by: its own tokens (``separate``), or those of the longest (``max``)
            or shortest axis (``min``), which keeps the aspect ratio.
        layout: Channel pairs, see :class:`~visionpe.encodings.rotary.base.RotaryEncoding`; published weights are
            half-split.
        grid_indexing: ``ij`` as said; ``xy``: the first band of pairs turns with the column, the last with the row.
        context: See :class:`~visionpe.encodings.rotary.base.RotaryEncoding`. Policy ``interpolate``, as published,
            spans -1 to 1 at every size; ``extrapolate`` and those that change frequencies keep the step of the trained
            grid.

    Raises:
        ValueError: If the periods are given in no way or in two, or an option lies outside its range.
    """

    source = "DINOv3, arXiv 2508.10104"
    irregular = True
    policies = ("interpolate", *(name for name in RotaryEncoding.policies if name != "interpolate"))
    in_tokens = False

    def __init__(
        self,
        *,
        base: float | None = None,
        min_period: float | None = None,
        max_period: float | None = None,
        normalize_coords: Normalize = "separate",
        layout: Layout = "half",
        grid_indexing: GridIndexing = "ij",
        **context: Any,
    ) -> None:
        super().__init__(layout=layout, **context)
        if (min_period is None) != (max_period is None) or (base is not None and min_period is not None):
            raise ValueError(
                f"base={base}, min_period={min_period}, max_period={max_period}; "
                "allowed: base alone, or min_period and max_period"
            )
        check_choice("normalize_coords", normalize_coords, Normalize)
        check_choice("grid_indexing", grid_indexing, GridIndexing)
        self.grid_indexing = grid_indexing
        for name, period in (("base", base), ("min_period", min_period), ("max_period", max_period)):
            if period is not None:
                check_base(name, period)
        if min_period is not None and max_period is not None and min_period > max_period:
            raise ValueError(
                f"min_period={min_period} is above max_period={max_period}; allowed: the shorter one as min_period"
            )
        self.base = 100.0 if base is None and min_period is None else base
        self.min_period, self.max_period, self.normalize_coords = min_period, max_period, normalize_coords

    def periods(self, device: torch.device) -> Tensor:
        """Periods of one axis in units of the coordinates, ``(bands,)``."""
        bands = self.head_dim // 2 // len(self.grid_size)
        if self.base is not None:
            return self.base ** (torch.arange(bands, device=device, dtype=torch.float32) / bands)
        assert self.min_period is not None
        assert self.max_period is not None
        spread = torch.linspace(0, 1, bands, device=device, dtype=torch.float32)
        return self.min_period * (self.max_period / self.min_period) ** spread

    def frequencies(self, layer: int, device: torch.device) -> Tensor:
        axes, turns = len(self.grid_size), 2 * pi / self.periods(device)
        freqs = torch.zeros(axes, 1, self.head_dim // 2, device=device)
        for axis in range(axes):
            band = slice(axis * len(turns), (axis + 1) * len(turns))
            freqs[axis, 0, band] = turns
        return freqs.flip(0) if self.grid_indexing == "ij" else freqs  # which have columns first

    def _lengths(self, size: tuple[int, ...]) -> list[int]:
        """What each axis is divided by."""
        if self.normalize_coords == "separate":
            return list(size)
        extreme = larger if self.normalize_coords == "max" else smaller
        return [reduce(extreme, size)] * len(size)

    def places(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        lengths = self._lengths(grid.size)
        units = [effective_length(m, n, self._rescaling) for n, m in zip(lengths, self._lengths(self.grid_size))]
        places = zip(self._axes(grid, device, dtype), lengths, units)
        return [(2 * p + 1 - length) / unit for p, length, unit in places]

    def units(self, grid: Grid) -> list[float]:
        return [2 / n for n in self._lengths(self.grid_size)]

    def extra_repr(self) -> str:
        span = f"base={self.base}" if self.base is not None else f"periods={self.min_period}..{self.max_period}"
        return f"{span}, normalize_coords={self.normalize_coords!r}, {super().extra_repr()}"
