"""The bias of signal encodings: products of every token with tables, picked by how two tokens differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from visionpe.attention.bias import Bias, narrowed, with_prefix
from visionpe.attention.signals.attention import signal_attention
from visionpe.attention.signals.picks import Picks
from visionpe.attention.signals.rows import SignalRows
from visionpe.precision import without_autocast
from visionpe.tracing import is_tracing


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
        picks: For each signal the rows along each of its axes.
        prefix: Tokens ahead that have no signals: their pairs get nothing.
        shared: All rows of short sequences, as :func:`visionpe.attention.signals.attention.signal_attention`
            reads them; None where no such
            kernel should be used.
    """

    structure = "signals"
    wide = True

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        tables: SignalTables,
        picks: Sequence[Sequence[Picks]],
        *,
        prefix: int = 0,
        shared: Callable[[], SignalRows] | None = None,
    ) -> None:
        self.q, self.k, self.tables, self.picks, self.prefix, self.shared = q, k, tables, picks, prefix, shared
        self.batch = q.shape[0]
        self.values_are_in = False  # the kernel has added the tables of the values already

    def _spatial(self, start: int, stop: int) -> tuple[int, int, int]:
        """Queries by number among spatial ones, and how many ahead of them are none."""
        first, last = max(start - self.prefix, 0), max(stop - self.prefix, 0)
        return first, last, (stop - start) - (last - first)

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        first, last, blank = self._spatial(start, stop)
        wide = torch.promote_types(dtype, torch.float32)  # many terms are added up
        with without_autocast(self.q):
            q, k = (x[..., self.prefix :, :].to(wide) for x in (self.q, self.k))
            q = q[..., first:last, :]
            total = q.new_zeros(())
            for of_queries, of_keys, picks in zip(self.tables.query, self.tables.key, self.picks):
                for tq, tk, pick in zip(of_queries.to(wide), of_keys.to(wide), picks):
                    total = total + pick.of_queries(q @ tq.mT, first, last) + pick.of_keys(k @ tk.mT, first, last)
        return with_prefix(total.to(dtype), blank, self.prefix)

    def matrix(self, dtype: torch.dtype) -> Tensor:
        return self.rows(0, self.q.shape[-2], dtype)

    def narrow(self, samples: slice, heads: slice) -> SignalBias:
        every = (self.tables.query, self.tables.key, self.tables.value)
        tables = SignalTables(*([table[:, heads] for table in tables] for tables in every))
        picks = [[pick.narrow(samples) for pick in each] for each in self.picks]
        q, k = (narrowed(t, samples, heads) for t in (self.q, self.k))
        return SignalBias(q, k, tables, picks, prefix=self.prefix)

    def scaled(self, factor: float) -> SignalBias:
        # Linear in queries and keys; its own kernel knows no factor on the logits.
        return SignalBias(self.q * factor, self.k * factor, self.tables, self.picks, prefix=self.prefix)

    def attend(self, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Attention with this bias alone, values included; ``k`` is that of the bias."""
        assert self.shared is not None
        self.values_are_in = True
        tables, keys = self.tables, None if mask is None else mask[:, 0, 0].expand(len(k), -1)
        return signal_attention(self.q, k, v, self.shared(), tables.query, tables.key, tables.value, mask=keys)

    def of_values(self, weights: Tensor, start: int, stop: int) -> Tensor:
        """What the tables of the values add to queries ``start`` to ``stop``, given their weights."""
        first, last, blank = self._spatial(start, stop)
        weights = weights.to(torch.promote_types(weights.dtype, torch.float32))[..., blank:, self.prefix :]
        with without_autocast(weights):
            total = weights.new_zeros(())
            for tables, picks in zip(self.tables.value, self.picks):
                for table, pick in zip(tables.to(weights.dtype), picks):
                    total = total + pick.shared(weights, first, last, table.shape[-2]) @ table
        return F.pad(total, (0, 0, blank, 0))  # (B, heads, stop - start, head_dim), in at least float32


def signal_bias(biases: Sequence[Bias], k: Tensor, mask: Tensor | None, dropout_p: float) -> SignalBias | None:
    """The signal bias among ``biases`` if its own kernel can do all there is to do, else None."""
    if len(biases) != 1 or not isinstance(bias := biases[0], SignalBias) or not bias.shared or dropout_p:
        return None
    by_key = mask is None or (mask.dtype == torch.bool and mask.shape[1:3] == (1, 1))
    return bias if by_key and bias.k is k and not is_tracing() else None
