"""Vectors for the offset along every axis, which a token meets: what such encodings share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from visionpe.base import PositionEncoding
from visionpe.grid import Grid
from visionpe.policy.functions.positions import OFFSET_POLICIES, rescale_positions
from visionpe.policy.functions.terms import as_term
from visionpe.policy.grammar import PolicyTerm


def offset_index(queries: int, keys: int, *, stride: int | None = None, device: torch.device | None = None) -> Tensor:
    """Rows of a table of offsets for all pairs along one axis whose queries or keys are pooled.

    Both kinds of token are stretched over the finer of the two grids: "MViTv2", section 4.1, and its published code.

    Args:
        queries, keys: Tokens along the axis.
        stride: Every how many keys a query stands, from the first, where these are not stretched.

    Returns:
        ``(queries, keys)``, from 0 to ``2 max(queries, keys) - 2``.
    """
    i = torch.arange(queries, device=device)[:, None]
    if stride is not None or queries == keys:
        return i * (stride or 1) - torch.arange(keys, device=device) + keys - 1
    back = torch.arange(keys - 1, -1, -1, device=device)
    # In whole numbers: in floating point some offsets come out just below a whole one.
    return max(queries, keys) * (i * keys + back * queries) // (queries * keys)


def decomposed_terms(
    q: Tensor,
    tables: Sequence[Tensor],
    query_size: Sequence[int],
    key_size: Sequence[int],
    stride: Sequence[int] | None = None,
) -> list[Tensor]:
    """Products of every query with the table entries of all rows, of all columns, ... of the keys.

    Their sum over the axes, each at the place of the key, is the bias; the grids differ where attention pools.

    Args:
        q: Unscaled spatial queries, ``(B, heads, N, head_dim)``.
        tables: One ``([heads,] 2 max(n, m) - 1, head_dim)`` an axis of n queries and m keys.
        query_size, key_size: Tokens per axis.
        stride: See :class:`~visionpe.grid.Grid`.

    Returns:
        One ``(B, heads, N, m)`` an axis.
    """
    q, terms = q.unflatten(2, tuple(query_size)), []
    steps: Sequence[int | None] = stride or [None] * len(tables)
    for axis, (table, n, m, step) in enumerate(zip(tables, query_size, key_size, steps), start=2):
        entries = table[..., offset_index(n, m, stride=step, device=q.device), :]  # ([heads,] n, m, head_dim)
        terms.append(_along(axis, q, entries, "bhnxc,nmc->bhnxm" if table.ndim == 2 else "bhnxc,hnmc->bhnxm"))
    return terms


def _along(axis: int, x: Tensor, entries: Tensor, equation: str) -> Tensor:
    """Tokens on a grid ``(B, heads, *size, channels)`` by what ``entries`` has for each line across ``axis``.

    Args:
        axis: Of ``x``.
        x: The tokens.
        entries: ``([heads,] n, ...)``, for the lines 0 to n - 1.
        equation: Of ``torch.einsum``: the tokens are ``(B, heads, n, tokens of a line, channels)``.

    Returns:
        ``(B, heads, N, channels)``.
    """
    lines = x.movedim(axis, 2)  # (B, heads, n, ..., channels)
    lines = lines if lines.ndim > 4 else lines[:, :, :, None]  # of one axis there are no others
    term = torch.einsum(equation, lines.flatten(3, -2), entries)
    return term.unflatten(3, lines.shape[3:-1]).movedim(2, axis).flatten(2, -2)


def offset_vectors(
    table: Tensor, row: Callable[[Tensor], Tensor], size: int, trained: int, policy: str | PolicyTerm | None
) -> Tensor:
    """Vectors of all offsets along one axis.

    Args:
        table: ``([heads,] rows, channels)``.
        row: From whole offsets to rows of the table.
        size: Tokens along the axis now.
        trained: In training.
        policy: One of :func:`~visionpe.policy.functions.positions.rescale_positions`; an offset that it leaves between
            two whole ones has a mixture of their vectors.

    Returns:
        ``([heads,] 2 size - 1, channels)``, in at least float32.
    """
    table = table.to(torch.promote_types(table.dtype, torch.float32))
    offsets = torch.arange(1 - size, size, device=table.device, dtype=table.dtype)
    at = rescale_positions(offsets, size, trained, policy)
    low = at.floor()
    here = table.index_select(-2, row(low.long()))
    if policy is None or as_term(policy, OFFSET_POLICIES).name in ("extrapolate", "clamp"):
        return here
    return torch.lerp(here, table.index_select(-2, row(low.long() + 1)), (at - low)[:, None])


class AxisVectors(PositionEncoding):
    """Base of encodings in which a token meets one vector an axis, that of its offset: exactly of low rank.

    A token carries its products with every row and every column, and one that it meets says in which it stands, so
    that no matrix of all pairs is built. Tokens with explicit coordinates must stand at whole ones, within the extent
    of the grid.
    """

    structure = "low rank"
    whole_coords = True

    def products(self, x: Tensor, tables: Sequence[Tensor], grid: Grid) -> list[Tensor]:
        """Products of every token with the vectors of all rows, of all columns, ...; zero for prefix tokens.

        Args:
            x: ``(B, heads, N, head_dim)``.
            tables: One ``([heads,] 2 n - 1, head_dim)`` an axis, of the finer grid where attention pools; entry
                ``offset (token - place) + n - 1``.
            grid: Where the tokens stand.

        Returns:
            One ``(B, heads, N, n)`` an axis.
        """
        spatial = x[..., grid.prefix :, :]
        if grid.dense:
            products = decomposed_terms(spatial, tables, grid.queries or grid.size, grid.size, grid.stride)
        else:
            products = [
                (spatial @ table.mT).gather(-1, index.expand(len(x), x.shape[1], -1, -1))
                for table, index in zip(tables, self.listed_index(grid, x.device))
            ]
        return [F.pad(product, (0, 0, grid.prefix, 0)) for product in products] if grid.prefix else products

    def averages(self, sums: Tensor, tables: Sequence[Tensor], grid: Grid) -> Tensor:
        """Vectors of every spatial token, averaged over what it has of each row, plus over each column, ...

        Args:
            sums: Of its weights in each row, column, ...: ``(B, heads, N, rank)``, prefix tokens first.
            tables: As for :meth:`products`, the same for all heads.
            grid: Where the tokens stand.

        Returns:
            ``(B, heads, N_spatial, head_dim)``.
        """
        total = sums.new_zeros(())
        spatial = sums[..., grid.prefix :, :].split(grid.size, dim=-1)
        if not grid.dense:
            for share, table, index in zip(spatial, tables, self.listed_index(grid, sums.device)):
                every = share.new_zeros(*share.shape[:-1], len(table))
                total = total + every.scatter_add(-1, index.expand_as(share), share) @ table
            return total
        queries, steps = grid.queries or grid.size, grid.stride or (None,) * grid.axes
        for axis, (share, table) in enumerate(zip(spatial, tables)):
            n, m = queries[axis], grid.size[axis]
            entries = table[offset_index(n, m, stride=steps[axis], device=sums.device)]  # (n, m, head_dim)
            total = total + _along(2 + axis, share.unflatten(2, queries), entries, "bhnxm,nmc->bhnxc")
        return total

    def _positions(self, grid: Grid, device: torch.device) -> list[Tensor]:
        """Whole coordinates along each axis, the smallest 0: only offsets matter."""
        places = grid.whole_positions(self.name, device=device, offsets=True)
        return list((places - places.amin(-2, keepdim=True)).unbind(-1))

    def listed_index(self, grid: Grid, device: torch.device) -> list[Tensor]:
        """Rows of the tables for spatial tokens that are no full grid, ``(1 or B, 1, N_spatial, n)`` an axis."""
        indices = []
        for p, n in zip(self._positions(grid, device), grid.size):
            index = p[..., None] - torch.arange(n, device=device) + n - 1  # ([B,] N, n)
            indices.append(index[:, None] if index.ndim == 3 else index[None, None])
        return indices

    def places(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> Tensor:
        """In which row, column, ... each token stands, one-hot, and prefix tokens in none: ``(1 or B, 1, N, rank)``."""
        if not grid.dense:
            return self._places(grid, device, dtype)
        key = (grid.size, grid.prefix, device, dtype)
        return self.cache.get(key, lambda: self._places(grid, device, dtype))

    def _places(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> Tensor:
        hot = [p[..., None] == torch.arange(n, device=device) for p, n in zip(self._positions(grid, device), grid.size)]
        places = torch.cat(hot, dim=-1).to(dtype)  # ([B,] N_spatial, rank)
        places = F.pad(places, (0, 0, grid.prefix, 0))
        return places[:, None] if places.ndim == 3 else places[None, None]
