"""What an encoding adds to the attention logits, and the structure it has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from math import prod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from visionpe.cache import TableCache
from visionpe.grid import Grid
from visionpe.tracing import is_tracing, is_transformed


class Bias(ABC):
    """A term of the scaled logits, ``(1 or B, heads or 1, N, N)``, that is only built where a kernel needs it."""

    structure: ClassVar[str]
    batch: int = 1  # samples for which the matrix differs
    kept: bool = False  # the matrix is built once for all calls
    wide: ClassVar[bool] = False  # its terms are too large for the digits of 16 bits
    plain: ClassVar[bool] = False  # a matrix already, for which no kernel does better than any

    @abstractmethod
    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """The rows of queries ``start`` to ``stop``: ``(1 or B, heads or 1, stop - start, N)``."""

    @abstractmethod
    def matrix(self, dtype: torch.dtype) -> Tensor:
        """All rows."""

    @abstractmethod
    def narrow(self, samples: slice, heads: slice) -> Bias:
        """The same bias for some samples and heads only."""

    @abstractmethod
    def scaled(self, factor: float) -> Bias:
        """This bias times a positive factor."""


def narrowed(t: Tensor, samples: slice, heads: slice) -> Tensor:
    """Some samples and heads of ``(B or 1, heads or 1, ...)``; what is shared by all stays."""
    t = t if t.shape[0] == 1 else t[samples]
    return t if t.shape[1] == 1 else t[:, heads]


def with_prefix(rows: Tensor, blank: int, prefix: int, terms: Tensor | None = None) -> Tensor:
    """Rows and columns ahead of ``(B, heads, rows, keys)``, for the pairs of prefix tokens: zero, or ``terms``.

    Args:
        rows: Of queries that are no prefix tokens, with keys that are none.
        blank: Queries ahead of them that are prefix tokens.
        prefix: Prefix tokens.
        terms: ``(heads or 1, 3)``: of prefix queries with other keys, of other queries with prefix keys, and of both
            prefix tokens.
    """
    if not prefix:
        return rows
    if terms is None:
        return F.pad(rows, (prefix, 0, blank, 0))
    ahead, behind, both = terms.to(rows.dtype)[None, :, :, None, None].unbind(2)  # (1, heads, 1, 1)
    whole = F.pad(rows.expand(-1, max(rows.shape[1], len(terms)), -1, -1), (prefix, 0, blank, 0))
    if is_transformed():  # where the terms are of several models, what they are written to has to be
        whole = whole + torch.zeros_like(both)
    whole[..., :blank, prefix:], whole[..., blank:, :prefix], whole[..., :blank, :prefix] = ahead, behind, both
    return whole


class DenseBias(Bias):
    """A bias without structure.

    Args:
        values: ``(1 or B, heads or 1, N, N)``.
    """

    structure = "dense"
    plain = True

    def __init__(self, values: Tensor) -> None:
        self.values, self.batch = values, values.shape[0]

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        return self.values[..., start:stop, :].to(dtype)

    def matrix(self, dtype: torch.dtype) -> Tensor:
        return self.values.to(dtype)

    def narrow(self, samples: slice, heads: slice) -> DenseBias:
        return DenseBias(narrowed(self.values, samples, heads))

    def scaled(self, factor: float) -> DenseBias:
        return DenseBias(self.values * factor)


def _windows(table: Tensor, size: Sequence[int]) -> Tensor:
    """All windows of a table that has two sizes less one along each axis: ``(heads, *size, *size)``, a view.

    Against a reversed table the keys of a query ascend, so that its row is such a window, starting where the query
    is, counted from the end: rows are then copied line by line, ten times faster than gathered.
    """
    if not torch.compiler.is_compiling():
        for axis, n in enumerate(size, start=1):
            table = table.unfold(axis, n, 1)
        return table
    table = table.contiguous()  # unfold would make the size a constant of the graph
    steps = table.stride()
    return table.as_strided((len(table), *size, *size), (*steps, *steps[1:]))


def offset_rows(table: Tensor, size: Sequence[int], first: int, last: int) -> Tensor:
    """What a table over offsets holds for the tokens ``first`` to ``last`` of a dense grid, with every token.

    Args:
        table: ``(heads, 2 n_0 - 1, 2 n_1 - 1, ...)``; entry ``offset (query - key) + n - 1`` along each axis.
        size: Tokens along each axis.
        first, last: The queries.

    Returns:
        ``(heads, last - first, N_spatial)``.
    """
    line = prod(size[1:])  # tokens that share the slowest coordinate
    top, bottom = first // line, -(-last // line)
    axes = tuple(range(1, 1 + len(size)))
    windows = _windows(table.flip(axes), size)
    rows = windows[:, size[0] - bottom : size[0] - top].flip(axes).flatten(1, axes[-1]).flatten(2)
    return rows[:, first - top * line : last - top * line]


# Up to here one gather by a kept index beats copies of lines.
GATHERED_TOKENS = 64
_INDICES = TableCache(limit=2**22)


def _all_rows(table: Tensor, size: Sequence[int]) -> Tensor:
    """:func:`offset_rows` of all tokens."""
    tokens = prod(size)
    # Gradients of a gather would be added up one by one.
    if is_tracing() or torch.is_grad_enabled() or tokens > GATHERED_TOKENS:
        return offset_rows(table, size, 0, tokens)

    def build() -> Tensor:
        entries = prod(table.shape[1:])
        places = torch.arange(entries, device=table.device).view(1, *table.shape[1:])
        return offset_rows(places, size, 0, tokens).flatten()

    index = _INDICES.get((tuple(size), table.device), build)
    return table.flatten(1).index_select(1, index).unflatten(1, (tokens, tokens))


class OffsetBias(Bias):
    """A function of the offset between query and key: a table over the offsets of a dense grid.

    The table has ``2 n - 1`` entries along an axis of ``n`` tokens, so it is linear in the tokens where the matrix is
    quadratic. Every pair that touches a prefix token has bias 0, or that of ``prefix``.

    Args:
        table: ``(heads or 1, 2 n_0 - 1, 2 n_1 - 1, ...)``; entry ``[:, dy + n_0 - 1, dx + n_1 - 1]`` belongs to the
            offset (query - key).
        grid: The dense grid.
        cache: Where the matrix may be kept, if the table holds no parameter.
        key: What the matrix depends on besides the grid and the dtype.
        prefix: Of pairs that touch a prefix token, ``(heads or 1, 3)``, see :func:`with_prefix`.
    """

    structure = "offset"

    def __init__(
        self,
        table: Tensor,
        grid: Grid,
        *,
        cache: TableCache | None = None,
        key: Hashable = (),
        prefix: Tensor | None = None,
    ) -> None:
        self.table, self.grid, self.cache, self.key, self.prefix = table, grid, cache, key, prefix
        self.kept = cache is not None

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        first, last = (max(t - self.grid.prefix, 0) for t in (start, stop))
        rows = offset_rows(self.table.to(dtype), self.grid.size, first, last)
        return with_prefix(rows[None], (stop - start) - (last - first), self.grid.prefix, self.prefix)

    def matrix(self, dtype: torch.dtype) -> Tensor:
        def build() -> Tensor:
            rows = _all_rows(self.table.to(dtype), self.grid.size)
            return with_prefix(rows[None], self.grid.prefix, self.grid.prefix, self.prefix)

        if self.cache is None:
            return build()
        key = ("matrix", self.grid.size, self.grid.prefix, self.table.device, dtype, self.key)
        return self.cache.get(key, build)

    def narrow(self, samples: slice, heads: slice) -> OffsetBias:
        # Without the cache: parts of matrices are not worth keeping.
        prefix = None if self.prefix is None else narrowed(self.prefix[None], samples, heads)[0]
        return OffsetBias(narrowed(self.table[None], samples, heads)[0], self.grid, prefix=prefix)

    def scaled(self, factor: float) -> OffsetBias:
        prefix = None if self.prefix is None else self.prefix * factor
        return OffsetBias(self.table * factor, self.grid, cache=self.cache, key=(self.key, factor), prefix=prefix)


class LowRankBias(Bias):
    """A product of two factors, exact: it can ride in extra query and key channels, without a matrix.

    Args:
        left: ``(B or 1, heads or 1, N, rank)``, of the queries.
        right: ``(B or 1, heads or 1, N, rank)``, of the keys.
    """

    structure = "low rank"

    def __init__(self, left: Tensor, right: Tensor) -> None:
        self.left, self.right, self.batch = left, right, max(left.shape[0], right.shape[0])

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        return self.left[..., start:stop, :].to(dtype) @ self.right.to(dtype).transpose(-2, -1)

    def matrix(self, dtype: torch.dtype) -> Tensor:
        return self.left.to(dtype) @ self.right.to(dtype).transpose(-2, -1)

    def narrow(self, samples: slice, heads: slice) -> LowRankBias:
        return LowRankBias(narrowed(self.left, samples, heads), narrowed(self.right, samples, heads))

    def scaled(self, factor: float) -> LowRankBias:
        return LowRankBias(self.left * factor, self.right)


class AxesBias(LowRankBias):
    """A sum over the axes of a term that depends on the query and on where the key stands along that axis.

    Its rank is the sum of the sides of the grid; the factor of the keys says where they stand, one-hot.

    Args:
        terms: For each axis ``(B, heads, N, n)``: of every query with the n places of a key.
        grid: The dense grid of the keys. What prefix queries hold is zero.
        places: Where each key stands, one-hot, ``(1, 1, N, rank)``.
    """

    def __init__(self, terms: Sequence[Tensor], grid: Grid, places: Callable[[], Tensor]) -> None:
        self.terms, self.grid, self.places, self.batch = terms, grid, places, terms[0].shape[0]

    @property
    def left(self) -> Tensor:  # type: ignore[override]
        return torch.cat(list(self.terms), dim=-1)

    @property
    def right(self) -> Tensor:  # type: ignore[override]
        return self.places()

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        total: Tensor | None = None
        for axis, term in enumerate(self.terms):
            shape = [-1 if a == axis else 1 for a in range(self.grid.axes)]
            part = term[..., start:stop, :].to(dtype).unflatten(-1, shape)  # (B, heads, rows, 1, n, 1)
            total = part if total is None else total + part
        assert total is not None
        return with_prefix(total.flatten(3), 0, self.grid.prefix)

    def matrix(self, dtype: torch.dtype) -> Tensor:
        return self.rows(0, self.terms[0].shape[-2], dtype)

    def narrow(self, samples: slice, heads: slice) -> AxesBias:
        return AxesBias([narrowed(term, samples, heads) for term in self.terms], self.grid, self.places)

    def scaled(self, factor: float) -> AxesBias:
        return AxesBias([term * factor for term in self.terms], self.grid, self.places)
