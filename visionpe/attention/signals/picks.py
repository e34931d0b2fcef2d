"""Which row of a table each pair of tokens takes along one axis of a signal: of pairs, or of lines of a full grid."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from visionpe.attention.signals.rows import rows_between


class Picks(ABC):
    """One axis of one signal. Tokens are spatial ones, without prefix."""

    @abstractmethod
    def of_queries(self, products: Tensor, first: int, last: int) -> Tensor:
        """Query times table ``(B, heads, last - first, L)`` to logits ``(B, heads, last - first, N)``."""

    @abstractmethod
    def of_keys(self, products: Tensor, first: int, last: int) -> Tensor:
        """Key times table ``(B, heads, N, L)`` to logits of queries ``first`` to ``last``, in the same shape."""

    @abstractmethod
    def shared(self, weights: Tensor, first: int, last: int, length: int) -> Tensor:
        """Weights ``(B, heads, last - first, N)`` of keys that share a row, summed: ``(B, heads, last - first, L)``."""

    def narrow(self, samples: slice) -> Picks:
        """The same for some samples."""
        return self


class PairPicks(Picks):
    """Rows of every pair, made where they are needed.

    Args:
        signal: The signal along the axis in the unit of rows, ``(1 or B, N)``.
        length: Rows of the table.
        nudge: See :func:`~visionpe.attention.signals.rows.rows_between`.
    """

    def __init__(self, signal: Tensor, length: int, nudge: float = 0.0) -> None:
        self.signal, self.length, self.nudge = signal, length, nudge

    def _rows(self, first: int, last: int) -> Tensor:
        rows = rows_between(self.signal[:, first:last], self.signal, self.length, nudge=self.nudge)
        return rows[:, None]  # (1 or B, 1, rows, N)

    def of_queries(self, products: Tensor, first: int, last: int) -> Tensor:
        rows = self._rows(first, last)
        return products.gather(3, rows.expand(*products.shape[:3], -1))

    def of_keys(self, products: Tensor, first: int, last: int) -> Tensor:
        rows = self._rows(first, last).mT
        return products.gather(3, rows.expand(*products.shape[:3], -1)).mT

    def shared(self, weights: Tensor, first: int, last: int, length: int) -> Tensor:
        sums = weights.new_zeros(*weights.shape[:-1], length)
        return sums.scatter_add(-1, self._rows(first, last).expand_as(weights), weights)

    def narrow(self, samples: slice) -> Picks:
        return self if len(self.signal) == 1 else PairPicks(self.signal[samples], self.length, self.nudge)


class LinePicks(Picks):
    """Positions along one axis of a full grid: as many different rows as two places along it have, not two tokens.

    Args:
        offsets: The offsets ``1 - n`` to ``n - 1`` along the axis in the unit of rows, ``(2 n - 1,)``. Not positions:
            differences of rescaled ones would differ by rounding, and pairs with one offset by a row.
        axis: Which.
        size: Tokens along every axis.
        length: Rows of the table.
    """

    def __init__(self, offsets: Tensor, axis: int, size: tuple[int, ...], length: int) -> None:
        self.axis, self.size = axis, size
        here = torch.arange(size[axis], device=offsets.device)
        rows = rows_between(offsets[:, None], offsets.new_zeros(1, 1), length)[:, 0, 0]
        self.rows = rows[here[:, None] - here + size[axis] - 1]  # (n, n), query first

    def _place(self, first: int, last: int) -> Tensor:
        """Where queries stand along the axis, ``(last - first,)``."""
        inner = 1
        for n in self.size[self.axis + 1 :]:
            inner = inner * n
        tokens = torch.arange(first, last, device=self.rows.device)
        return tokens.div(inner, rounding_mode="floor") % self.size[self.axis]

    def of_queries(self, products: Tensor, first: int, last: int) -> Tensor:
        rows = self.rows[self._place(first, last)]  # (queries, n)
        lines = products.gather(3, rows.expand(*products.shape[:2], -1, -1))
        return self._spread(lines, 3)

    def of_keys(self, products: Tensor, first: int, last: int) -> Tensor:
        shape = [n if a == self.axis else 1 for a, n in enumerate(self.size)]
        own = (
            self.rows.T.view(*shape, self.size[self.axis]).expand(*self.size, -1).flatten(0, -2)
        )  # (N, n): of a key, all query places
        lines = products.gather(3, own.expand(*products.shape[:2], -1, -1))
        return lines.mT.index_select(2, self._place(first, last))

    def shared(self, weights: Tensor, first: int, last: int, length: int) -> Tensor:
        others = [a - len(self.size) for a in range(len(self.size)) if a != self.axis]
        lines = weights.unflatten(-1, self.size)
        lines = lines.sum(dim=others) if others else lines  # (B, heads, queries, n)
        rows = self.rows[self._place(first, last)].expand_as(lines)
        return weights.new_zeros(*weights.shape[:-1], length).scatter_add(-1, rows, lines)

    def _spread(self, lines: Tensor, dim: int) -> Tensor:
        """Values at the places along the axis to the tokens that stand there."""
        shape = [n if a == self.axis else 1 for a, n in enumerate(self.size)]
        return lines.unflatten(dim, shape).expand(*lines.shape[:dim], *self.size).flatten(dim)
