"""A bias on the offset where queries and keys stand on different grids, as attention has it that pools them."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from visionpe.attention.bias import Bias, narrowed, with_prefix
from visionpe.grid import Grid
from visionpe.tracing import larger


def pooled_index(queries: int, keys: int, *, stride: int | None = None, device: torch.device | None = None) -> Tensor:
    """Where a table over the offsets of the finer grid is read for all pairs along one axis.

    Args:
        queries, keys: Tokens along the axis, both stretched over the finer of the two grids.
        stride: Or every how many keys a query stands, from the first.

    Returns:
        ``(queries, keys)``, the offset of their middles rounded down, from 0 to ``2 max(queries, keys) - 2``.
    """
    i = torch.arange(queries, device=device)[:, None]
    j = torch.arange(keys, device=device)
    if stride is not None:
        return stride * i - j + keys - 1
    finer = larger(queries, keys)
    # In whole numbers: in floating point some offsets come out just below a whole one.
    return ((2 * i + 1) * keys - (2 * j + 1) * queries) * finer // (2 * queries * keys) + finer - 1


def pooled_shift(queries: int, keys: int, *, device: torch.device | None = None) -> Tensor:
    """What :func:`pooled_index` rounds off, in tokens, from 0 to 1: of all pairs where one grid divides the other."""
    whole = 2 * queries * keys
    # A tensor, as in a graph for every size there are no numbers but whole ones.
    offset = torch.ones((), device=device, dtype=torch.long) * (keys - queries) * larger(queries, keys)
    return offset % whole / whole


class PooledOffsetBias(Bias):
    """A function of the offset between queries and keys of pooled attention: a table over the finer grid's offsets.

    Linear in the tokens until a kernel asks for rows. Pairs that touch a prefix token have bias 0, or that of
    ``prefix``.

    Args:
        table: ``(heads or 1, 2 n_0 - 1, 2 n_1 - 1, ...)`` of the finer grid; entry ``offset (query - key) + n - 1``.
        grid: The grid, with ``queries``.
        prefix: See :class:`~visionpe.attention.bias.OffsetBias`.
    """

    structure = "pooled offset"

    def __init__(self, table: Tensor, grid: Grid, *, prefix: Tensor | None = None) -> None:
        assert grid.queries is not None
        self.table, self.grid, self.queries, self.prefix = table, grid, grid.queries, prefix

    def _rows(self, dtype: torch.dtype, lines: slice = slice(None)) -> Tensor:
        """Of the queries that share some slowest coordinates: ``(heads, queries, N)``."""
        table = self.table.to(dtype)
        strides = self.grid.stride or (None,) * self.grid.axes
        for axis, (n, m, stride) in enumerate(zip(self.queries, self.grid.size, strides)):
            index = pooled_index(n, m, stride=stride, device=table.device)
            index = index[lines] if axis == 0 else index
            place = 1 + 2 * axis  # behind the queries and keys of the axes before
            table = table.index_select(place, index.flatten()).unflatten(place, index.shape)
        axes = range(1, table.ndim)
        return table.permute(0, *axes[::2], *axes[1::2]).flatten(1, len(self.queries)).flatten(2)

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        first, last = (max(t - self.grid.prefix, 0) for t in (start, stop))
        line = prod(self.queries[1:])
        top, bottom = first // line, -(-last // line)
        rows = self._rows(dtype, slice(top, bottom))[:, first - top * line : last - top * line]
        return with_prefix(rows[None], (stop - start) - (last - first), self.grid.prefix, self.prefix)

    def matrix(self, dtype: torch.dtype) -> Tensor:
        return with_prefix(self._rows(dtype)[None], self.grid.prefix, self.grid.prefix, self.prefix)

    def narrow(self, samples: slice, heads: slice) -> PooledOffsetBias:
        prefix = None if self.prefix is None else narrowed(self.prefix[None], samples, heads)[0]
        return PooledOffsetBias(narrowed(self.table[None], samples, heads)[0], self.grid, prefix=prefix)

    def scaled(self, factor: float) -> PooledOffsetBias:
        prefix = None if self.prefix is None else self.prefix * factor
        return PooledOffsetBias(self.table * factor, self.grid, prefix=prefix)
