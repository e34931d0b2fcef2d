"""The bias of signal encodings: products of every token with tables, picked by how two tokens differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from visionpe.bias import Bias, narrowed
from visionpe.precision import without_autocast
from visionpe.signal_rows import SignalRows
from visionpe.signals import signal_attention


@dataclass(frozen=True)
class SignalTables:
    """Tables of one layer.

    Args:
        query, key, value: For each signal ``(axes, heads, L, head_dim)``.
    """

    query: Sequence[Tensor]
    key: Sequence[Tensor]
    value: Sequence[Tensor]


class SignalBias(Bias):
    """``q Tq[row] + k Tk[row]``, summed over the axes of every signal; ``Tv[row]`` joins the values.

    Args:
        q, k: Queries, scaled, and keys, unrotated: ``(B, heads, N, head_dim)``.
        tables: The tables.
        index: ``index(start, stop)`` gives for each signal the rows of queries ``start`` to ``stop`` with every key,
            ``(axes, B or 1, stop - start, N)``; one row past the end of the table for pairs without signals.
        shared: All rows of short sequences, as :func:`visionpe.signals.signal_attention` reads them; None where no such
            kernel should be used.
    """

    structure = "signals"
    wide = True

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        tables: SignalTables,
        index: Callable[[int, int], Sequence[Tensor]],
        *,
        shared: Callable[[], SignalRows] | None = None,
    ) -> None:
        self.q, self.k, self.tables, self.index, self.shared = q, k, tables, index, shared
        self.batch = q.shape[0]
        self.values_are_in = False  # the kernel has added the tables of the values already

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        wide = torch.promote_types(dtype, torch.float32)  # many terms are added up
        with without_autocast(self.q):
            total = self.q.new_zeros((), dtype=wide)
            q, k = self.q[..., start:stop, :].to(wide), self.k.to(wide)
            index = self.index(start, stop)
            for of_queries, of_keys, rows in zip(self.tables.query, self.tables.key, index):
                for tq, tk, row in zip(of_queries, of_keys, rows):
                    row = row.long()[:, None].expand(*q.shape[:2], *row.shape[1:])  # (B, heads, rows, N)
                    total = total + _with_blank(q @ tq.to(wide).mT).gather(3, row)
                    total = total + _with_blank(k @ tk.to(wide).mT).gather(3, row.mT).mT
        return total.to(dtype)

    def matrix(self, dtype: torch.dtype) -> Tensor:
        return self.rows(0, self.q.shape[-2], dtype)

    def narrow(self, samples: slice, heads: slice) -> SignalBias:
        every = (self.tables.query, self.tables.key, self.tables.value)
        tables = SignalTables(*([table[:, heads] for table in tables] for tables in every))

        def index(start: int, stop: int) -> list[Tensor]:
            return [row if row.shape[1] == 1 else row[:, samples] for row in self.index(start, stop)]

        q, k = (narrowed(t, samples, heads) for t in (self.q, self.k))
        return SignalBias(q, k, tables, index)

    def attend(self, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Attention with this bias alone, values included; ``k`` is that of the bias."""
        assert self.shared is not None
        self.values_are_in = True
        tables, keys = self.tables, None if mask is None else mask[:, 0, 0].expand(len(k), -1)
        return signal_attention(self.q, k, v, self.shared(), tables.query, tables.key, tables.value, mask=keys)

    def of_values(self, weights: Tensor, start: int, stop: int) -> Tensor:
        """What the tables of the values add to queries ``start`` to ``stop``, given their weights."""
        weights = weights.to(torch.promote_types(weights.dtype, torch.float32))
        with without_autocast(weights):
            total = weights.new_zeros(())
            for tables, rows in zip(self.tables.value, self.index(start, stop)):
                for table, row in zip(tables, rows):
                    length = table.shape[-2]
                    row = row.long()[:, None].expand_as(weights)
                    sums = weights.new_zeros(*weights.shape[:-1], length + 1).scatter_add(-1, row, weights)
                    total = total + sums[..., :length] @ table.to(weights.dtype)
        return total  # (B, heads, stop - start, head_dim), in at least float32


def pair_rows(queries: Tensor, keys: Tensor, *, multiplier: float, length: int) -> Tensor:
    """Row of a table for every pair of a query with a key: see :func:`visionpe.signals.table_rows`.

    Args:
        queries: Signals ``(W, m, axes)``.
        keys: Signals ``(W, n, axes)``.
        multiplier, length: Of the table.

    Returns:
        ``(axes, W, m, n)`` int64.
    """
    a, b = ((multiplier * s).movedim(-1, 0) for s in (queries, keys))
    place = a[..., :, None] - b[..., None, :] + length / 2
    return place.clamp(min=0).long().clamp(max=length - 1)


def _with_blank(products: Tensor) -> Tensor:
    """One further row, that of pairs without signals: they get nothing."""
    return F.pad(products, (0, 1))


def signal_bias(biases: Sequence[Bias], k: Tensor, mask: Tensor | None, dropout_p: float) -> SignalBias | None:
    """The signal bias among ``biases`` if its own kernel can do all there is to do, else None."""
    if len(biases) != 1 or not isinstance(bias := biases[0], SignalBias) or not bias.shared or dropout_p:
        return None
    by_key = mask is None or (mask.dtype == torch.bool and mask.shape[1:3] == (1, 1))
    return bias if by_key and bias.k is k and not torch.compiler.is_compiling() else None
