"""Axial rotary position embedding on normalised coordinates."""

from __future__ import annotations

import weakref
from functools import reduce
from math import log, pi
from typing import Any, Literal

import torch
from torch import Tensor

from visionpe.checks import check_choice, check_number
from visionpe.encodings.rotary.base import GridIndexing, RotaryEncoding
from visionpe.encodings.rotary.pairs import Layout
from visionpe.grid import Grid
from visionpe.policy.functions.positions import effective_length
from visionpe.ranges import check_base
from visionpe.registry import register_encoding
from visionpe.tracing import is_tracing, larger, smaller

Normalize = Literal["separate", "max", "min"]


@register_encoding("rope_norm")
class NormalizedRoPE(RotaryEncoding):
    """Coordinates from -1 to 1 across the image; the first band of pairs turns with the row, the next with the column.

    Source: DINOv3, section 3.2 (with RoPE-box jittering) and its published code. Token i of n stands at
    ``2 (i + 0.5) / n - 1``; a pair turns by ``2 pi coordinate / period``. Each axis has the periods ``base ** (i /
    bands)``, or ``bands`` of them from ``min_period`` to ``max_period`` at equal ratios; no parameters.

    In training the coordinates of a whole forward pass are shifted, then stretched along each axis, then scaled, all at
    random. Under ``torch.compile`` every layer draws its own.

    Args:
        base: Of the periods; 100 if no range is given.
        min_period, max_period: Shortest and longest period in units of the coordinates; both, and then no ``base``.
        normalize_coords: What an axis is divided by: its own tokens (``separate``), or those of the longest (``max``)
            or shortest axis (``min``), which keeps the aspect ratio.
        shift_coords: In training each axis is shifted by up to this much.
        jitter_coords: In training each axis is stretched by a factor of up to this, log-uniform from its inverse.
        rescale_coords: In training all axes are scaled by a factor of up to this, likewise.
        layout: Channel pairs, see :class:`~visionpe.encodings.rotary.base.RotaryEncoding`; published weights are
            half-split.
        grid_indexing: ``ij`` as said; ``xy``: the first band of pairs turns with the column, the last with the row.
        context: See :class:`~visionpe.base.PositionEncoding`. Policy ``interpolate``, as published, spans -1 to 1 at
            every size; ``extrapolate`` and those that change frequencies keep the step of the trained grid.

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
        shift_coords: float | None = None,
        jitter_coords: float | None = None,
        rescale_coords: float | None = None,
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
        for name, value, least in (
            ("shift_coords", shift_coords, 0),
            ("jitter_coords", jitter_coords, 1),
            ("rescale_coords", rescale_coords, 1),
        ):
            if value is not None and check_number(name, value, None, 1e6) < least:
                raise ValueError(f"{name}={value} is too small; allowed: {least} or more, or None")
        self.base = 100.0 if base is None and min_period is None else base
        self.min_period, self.max_period, self.normalize_coords = min_period, max_period, normalize_coords
        self.shift_coords, self.jitter_coords, self.rescale_coords = shift_coords, jitter_coords, rescale_coords
        self._draws: dict[int, Tensor] = {}  # of the forward passes under way

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

    def coordinates(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        lengths = self._lengths(grid.size)
        units = [effective_length(m, n, self._rescaling) for n, m in zip(lengths, self._lengths(self.grid_size))]
        places = zip(self._axes(grid, device, dtype), lengths, units)
        scaled = [(2 * p + 1 - length) / unit for p, length, unit in places]
        if not self._moves:
            return scaled
        scale, shift = self._drawn(grid, device, dtype).unbind()
        return [(p + t) * s for p, s, t in zip(scaled, scale, shift)]

    def units(self, grid: Grid) -> list[float]:
        return [2 / n for n in self._lengths(self.grid_size)]

    @property
    def _moves(self) -> bool:
        """True where coordinates are changed at random."""
        chosen = (self.shift_coords, self.jitter_coords, self.rescale_coords)
        return self.training and any(value is not None for value in chosen)

    def _drawn(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Scale and shift of each axis, ``(2, axes)``, the same for all layers that are given this very grid.

        Every layer draws, even where the draw of the first one is used: a checkpointed layer that runs again in the
        backward pass must take as many random numbers as before.
        """
        shift = torch.zeros(grid.axes, device=device, dtype=dtype)
        scale = torch.ones(grid.axes, device=device, dtype=dtype)
        if self.shift_coords is not None:
            shift = torch.empty_like(shift).uniform_(-self.shift_coords, self.shift_coords)
        if self.jitter_coords is not None:
            scale = torch.empty_like(scale).uniform_(-log(self.jitter_coords), log(self.jitter_coords)).exp()
        if self.rescale_coords is not None:
            whole = torch.empty_like(scale[:1]).uniform_(-log(self.rescale_coords), log(self.rescale_coords))
            scale = scale * whole.exp()
        draw = torch.stack((scale, shift))
        if is_tracing():
            return draw
        if id(grid) not in self._draws:
            self._draws[id(grid)] = draw
            weakref.finalize(grid, self._draws.pop, id(grid), None)
        return self._draws[id(grid)].to(device, dtype)

    def rotation(self, grid: Grid, *, layer: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        if self._moves:
            return self._compute(grid, layer, device, torch.promote_types(dtype, torch.float32))
        return super().rotation(grid, layer=layer, device=device, dtype=dtype)

    def extra_repr(self) -> str:
        span = f"base={self.base}" if self.base is not None else f"periods={self.min_period}..{self.max_period}"
        return f"{span}, normalize_coords={self.normalize_coords!r}, {super().extra_repr()}"
