"""Which rows of the tables each pair of a signal attention reads, in the form that is fastest to read by."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

import torch
from torch import Tensor

# Pairs that are computed together; on a CPU so few that what it works on stays in its cache.
PAIRS, CPU_PAIRS = 2**20, 2**14


def table_rows(signal: Tensor, *, multiplier: float, length: int) -> Tensor:
    """Row of a table for every pair: ``floor(m s_i - m s_j + length / 2)``, kept inside the table.

    Source: Swin3D, arXiv 2304.06906, eq. 6, with the last row where a difference lies beyond the table.

    Args:
        signal: ``(W, n, axes)``, in at least float32.
        multiplier: Rows per unit of the signal, ``m``.
        length: Rows of the table, even.

    Returns:
        ``(axes, W, n, n)`` int64, query first.
    """
    scaled = (multiplier * signal).movedim(-1, 0)  # products first, so that equal signals give exactly the middle
    return rows_between(scaled, scaled, length)


def rows_between(
    queries: Tensor, keys: Tensor, length: int, dtype: torch.dtype = torch.int64, nudge: float = 0.0
) -> Tensor:
    """The same rows ``(..., m, n)`` from signals ``(..., m)`` and ``(..., n)`` in the unit of rows.

    ``nudge``, rows, is added before rounding down: what was rescaled may lie a rounding error below its row.
    """
    place = queries[..., :, None] - keys[..., None, :]
    place += length / 2 + nudge  # half before rounding: noise at 0 is harmless
    return place.clamp_(min=0, max=length - 1).to(dtype)


@cache
def sparse_products() -> bool:
    """Whether this PyTorch has fast products of sparse matrices on the CPU."""
    if not torch.backends.mkl.is_available():
        return False
    with warnings.catch_warnings():  # PyTorch says once that such matrices are new
        warnings.simplefilter("ignore")
        torch.eye(1).to_sparse_csr()
    return True


@dataclass(frozen=True)
class RowChunk:
    """Some windows of a bucket.

    The products of every token with every row in use are a table ``(tokens, R)``. A pair reads from two of them, that
    of the queries and that of the keys, laid flat one after the other.

    Args:
        windows: Which.
        tokens: Padding included.
        used: Rows of all tables, one table after the other, that occur there at all, ``(R,)``.
        places: Where a pair reads, ``(pairs, 2 * axes)`` int32: for its query along all axes, then for its key.
    """

    windows: slice
    tokens: int
    used: Tensor
    places: Tensor

    def of(self, key: bool) -> Tensor:
        """Places for the queries alone, or for the keys in a table of their own: ``(axes, pairs)`` int64."""
        axes = self.places.shape[1] // 2
        columns = self.places[:, axes:] if key else self.places[:, :axes]
        columns = columns.t().to(torch.int64, memory_format=torch.contiguous_format)
        return columns.sub_(self.tokens * len(self.used)) if key else columns

    def add_picked(self, sums: Tensor, tables: Tensor) -> None:
        """Add to every pair, in place, what it reads.

        Args:
            sums: ``(H, pairs)``.
            tables: ``(H, 1, tokens, R)`` of the queries, or ``(H, 2, tokens, R)`` of the queries and the keys.
        """
        pairs, columns = self.places.shape
        places = self.places if tables.shape[1] == 2 else self.places[:, : columns // 2].contiguous()
        flat = tables.flatten(1)
        if sums.device.type == "cpu" and sparse_products():
            # A pair is a row of a matrix of ones: one pass, where a gather for each column takes twice as long.
            starts = torch.arange(0, places.numel() + 1, places.shape[1], dtype=torch.int32)
            size = (pairs, flat.shape[1])
            ones = sums.new_ones(places.numel())
            matrix = torch.sparse_csr_tensor(starts, places.view(-1), ones, size, check_invariants=False)
            for one, table in zip(sums, flat):
                torch.addmv(one, matrix, table, out=one)
            return
        for column in places.t().long():
            sums += flat.gather(1, column.expand(len(sums), -1))

    def table(self, heads: int, tables: int, room: Tensor) -> Tensor:
        """Memory for :attr:`tokens` x R in ``room``: ``(heads, tables, tokens, R)``."""
        shape = (heads, tables, self.tokens, len(self.used))
        return room[: math.prod(shape)].view(shape)

    def shared(self, weights: Tensor, columns: Tensor, room: Tensor) -> Tensor:
        """Sum of the weights of each token whose pairs share a row.

        Args:
            weights: ``(H, pairs)``.
            columns: From :meth:`of`.
            room: Memory that the result takes.

        Returns:
            ``(H, tokens, R)``.
        """
        sums = self.table(len(weights), 1, room).zero_()
        flat = sums.flatten(1)
        for column in columns[:, None].expand(-1, len(weights), -1):
            flat.scatter_add_(1, column, weights)
        return sums[:, 0]


class SignalRows:
    """The rows of every pair of a bucket, made once and read by every block that attends in it.

    Args:
        rows: For each signal :func:`table_rows`, ``(axes, W, n, n)``.
        lengths: For each signal the rows of a table.

    Raises:
        ValueError: If the numbers of signals differ or a row lies outside of its table.
    """

    def __init__(self, rows: Sequence[Tensor], lengths: Sequence[int]) -> None:
        if len(rows) != len(lengths) or not rows:
            raise ValueError(f"rows of {len(rows)} signals and lengths of {len(lengths)}: one of each for every signal")
        for signal, length in zip(rows, lengths):
            if signal.numel() and not 0 <= int(signal.min()) <= int(signal.max()) < length:
                raise ValueError(f"rows {int(signal.min())} to {int(signal.max())} of a table with {length} rows")
        self._cut(rows, lengths, lambda some: [axis[some] for signal in rows for axis in signal])

    @classmethod
    def of_signals(cls, signals: Sequence[tuple[Tensor, float, int]], nudge: float = 0.0) -> SignalRows:
        """The same as from :func:`table_rows` of every signal, which are never held all at once.

        Args:
            signals: For each its values ``(W, n, axes)`` in at least float32, rows per unit, rows of a table.
            nudge: See :func:`rows_between`.
        """
        self = cls.__new__(cls)
        scaled = [(multiplier * values).movedim(-1, 0) for values, multiplier, _ in signals]  # (axes, W, n)
        lengths = [length for *_, length in signals]
        self._cut(
            scaled,
            lengths,
            lambda some: [
                row
                for s, length in zip(scaled, lengths)
                for row in rows_between(s[:, some], s[:, some], length, torch.int32, nudge).unbind()
            ],
        )
        return self

    def _cut(
        self, signals: Sequence[Tensor], lengths: Sequence[int], columns: Callable[[slice], Sequence[Tensor]]
    ) -> None:
        self.lengths, self.axes = tuple(lengths), tuple(len(signal) for signal in signals)
        self.windows, self.tokens = signals[0].shape[1:3]
        starts = [0, *accumulate(length for axes, length in zip(self.axes, lengths) for _ in range(axes))]
        together = CPU_PAIRS if signals[0].device.type == "cpu" else PAIRS
        step = max(1, together // max(1, self.tokens**2))
        cuts = [slice(at, at + step) for at in range(0, self.windows, step)]
        self.chunks = [_chunk(some, columns(some), starts) for some in cuts]

    def room(self, heads: int, like: Tensor) -> Tensor:
        """Memory for the tables of one chunk at a time: fresh memory for each would take a CPU long."""
        return like.new_empty(2 * heads * max((c.tokens * len(c.used) for c in self.chunks), default=0))


def _chunk(windows: slice, columns: Sequence[Tensor], starts: Sequence[int]) -> RowChunk:
    """Rows ``(W, n, n)`` along every axis to places; ``starts`` are the first rows of the tables."""
    count, n = columns[0].shape[:2]
    device, axes = columns[0].device, len(columns)
    ends = torch.stack([torch.stack(column.aminmax()) for column in columns]).tolist()  # of the rows in use
    used = [torch.arange(s + low, s + high + 1, device=device) for s, (low, high) in zip(starts, ends)]
    width, tokens = sum(map(len, used)), count * n
    first = (torch.arange(tokens, dtype=torch.int32, device=device) * width).view(count, n)  # place of row 0
    places = first.new_empty(count, n, n, 2 * axes)
    before = 0
    for axis, (column, (low, _)) in enumerate(zip(columns, ends)):
        here = first + (before - low)
        torch.add(column, here[:, :, None], out=places[..., axis])
        torch.add(column, (here + tokens * width)[:, None], out=places[..., axes + axis])
        before += len(used[axis])
    return RowChunk(windows, tokens, torch.cat(used), places.view(-1, 2 * axes))
