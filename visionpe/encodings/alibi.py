"""2D ALiBi: attention fades with distance."""

from __future__ import annotations

from math import floor, log2

import torch
from torch import Tensor

from visionpe.base import PositionEncoding
from visionpe.bias import Bias, DenseBias, OffsetBias
from visionpe.grid import Grid
from visionpe.registry import register_encoding
from visionpe.resize import POSITION_POLICIES, rescale_positions


def alibi_slopes(num_heads: int) -> list[float]:
    """One slope a head: powers of ``2 ** (-8 / n)`` for n heads, n a power of two.

    Otherwise those of the next lower power of two m, then every other slope of 2 m until there are enough ("Train
    Short, Test Long", section 3).
    """
    power = 2 ** floor(log2(num_heads))
    slopes = [2 ** (-8 * i / power) for i in range(1, power + 1)]
    finer = [2 ** (-8 * i / (2 * power)) for i in range(1, 2 * power + 1, 2)]
    return slopes + finer[: num_heads - power]


@register_encoding("alibi")
class Alibi2D(PositionEncoding):
    """The logit of a pair falls by ``slope * distance``, Euclidean, in tokens; no parameters.

    Source: CROMA, section 3 (2D-ALiBi), after "Train Short, Test Long". Prefix tokens have no distance: bias 0.

    Args:
        context: See :class:`~visionpe.base.PositionEncoding`. Policy ``extrapolate`` measures distances in tokens, as
            in the paper; ``interpolate`` in tokens of the trained grid.
    """

    source = "CROMA, arXiv 2311.00566"
    policies = POSITION_POLICIES

    def _slopes(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        return torch.tensor(alibi_slopes(self.num_heads), device=device, dtype=dtype)

    def _table(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> Tensor:
        squares = torch.zeros((), device=device, dtype=dtype)
        for size, trained in zip(grid.size, self.grid_size):
            offsets = torch.arange(1 - size, size, device=device, dtype=dtype)
            offsets = rescale_positions(offsets, size, trained, self.policy or "extrapolate")
            squares = squares[..., None] + offsets.square()
        slopes = self._slopes(device, dtype).view(-1, *[1] * grid.axes)
        return -slopes * squares.sqrt()  # (heads, 2 n_0 - 1, 2 n_1 - 1, ...)

    def _pairs(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The matrix for tokens that are no full grid."""
        axes = grid.positions(device=device, dtype=dtype).unbind(-1)
        scaled = [
            rescale_positions(p, size, trained, self.policy or "extrapolate")
            for p, size, trained in zip(axes, grid.size, self.grid_size)
        ]
        points = torch.stack(scaled, dim=-1)  # ([B,] N, axes)
        distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
        bias = -self._slopes(device, dtype)[:, None, None] * distance[..., None, :, :]
        bias = torch.nn.functional.pad(bias, (grid.prefix, 0, grid.prefix, 0))
        return bias if bias.ndim == 4 else bias[None]  # (1 or B, heads, N, N)

    def bias(self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0) -> Bias:
        dtype = torch.promote_types(q.dtype, torch.float32)
        if not grid.dense:
            return DenseBias(self._pairs(grid, q.device, dtype))
        key = (grid.size, self.policy, self.grid_size, q.device, dtype)
        table = self.cache.get(key, lambda: self._table(grid, q.device, dtype))
        return OffsetBias(table, grid, cache=self.cache, key=(self.policy, self.grid_size))
