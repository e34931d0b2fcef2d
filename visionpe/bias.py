"""What an encoding adds to the attention logits, and the structure it has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from typing import ClassVar

import torch
from torch import Tensor

from visionpe.cache import TableCache
from visionpe.grid import Grid


class Bias(ABC):
    """A term of the scaled logits, ``(1 or B, heads or 1, N, N)``, that is only built where a kernel needs it."""

    structure: ClassVar[str]
    batch: int = 1  # samples for which the matrix differs

    @abstractmethod
    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """The rows of queries ``start`` to ``stop``: ``(1 or B, heads or 1, stop - start, N)``."""

    @abstractmethod
    def matrix(self, dtype: torch.dtype) -> Tensor:
        """All rows."""


class DenseBias(Bias):
    """A bias without structure.

    Args:
        values: ``(1 or B, heads or 1, N, N)``.
    """

    structure = "dense"

    def __init__(self, values: Tensor) -> None:
        self.values, self.batch = values, values.shape[0]

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        return self.values[..., start:stop, :].to(dtype)

    def matrix(self, dtype: torch.dtype) -> Tensor:
        return self.values.to(dtype)


class OffsetBias(Bias):
    """A function of the offset between query and key: a table over the offsets of a dense grid.

    The table has ``2 n - 1`` entries along an axis of ``n`` tokens, so it is linear in the tokens where the matrix is
    quadratic. Every pair that touches a prefix token has bias 0.

    Args:
        table: ``(heads or 1, 2 n_0 - 1, 2 n_1 - 1, ...)``; entry ``[:, dy + n_0 - 1, dx + n_1 - 1]`` belongs to the
            offset (query - key).
        grid: The dense grid.
        cache: Where the matrix may be kept, if the table holds no parameter.
        key: What the matrix depends on besides the grid and the dtype.
    """

    structure = "offset"

    def __init__(self, table: Tensor, grid: Grid, *, cache: TableCache | None = None, key: Hashable = ()) -> None:
        self.table, self.grid, self.cache, self.key = table, grid, cache, key

    def _ranks(self, device: torch.device) -> Tensor:
        """Rank of every spatial token in the flattened table, so that an offset is a difference of ranks."""
        ranks = torch.zeros(1, dtype=torch.long, device=device)
        for n in self.grid.size:
            ranks = (ranks[:, None] * (2 * n - 1) + torch.arange(n, device=device)).flatten()
        return ranks  # (N_spatial,)

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        ranks = self._ranks(self.table.device)
        first, last = (max(t - self.grid.prefix, 0) for t in (start, stop))
        centre = ranks[-1]  # the rank of offset zero
        index = ranks[first:last, None] - ranks + centre  # (rows, N_spatial)
        flat = self.table.to(dtype).flatten(1)  # (heads, offsets)
        rows = flat.index_select(1, index.flatten()).unflatten(1, index.shape)  # (heads, rows, N_spatial)
        blank = (stop - start) - (last - first)
        return torch.nn.functional.pad(rows, (self.grid.prefix, 0, blank, 0))[None]  # (1, heads, stop - start, N)

    def matrix(self, dtype: torch.dtype) -> Tensor:
        def build() -> Tensor:
            return self.rows(0, self.grid.num_tokens, dtype)

        if self.cache is None:
            return build()
        key = ("matrix", self.grid.size, self.grid.prefix, self.table.device, dtype, self.key)
        return self.cache.get(key, build)


class LowRankBias(Bias):
    """A product of two factors, exact: it rides in extra query and key channels, and no matrix is built.

    Args:
        left: ``(B or 1, heads or 1, N, rank)``, of the queries.
        right: ``(B or 1, heads or 1, N, rank)``, of the keys.
    """

    structure = "low rank"

    def __init__(self, left: Tensor, right: Tensor) -> None:
        self.left, self.right, self.batch = left, right, max(len(left), len(right))

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        return self.left[..., start:stop, :].to(dtype) @ self.right.to(dtype).transpose(-2, -1)

    def matrix(self, dtype: torch.dtype) -> Tensor:
        return self.left.to(dtype) @ self.right.to(dtype).transpose(-2, -1)


class BucketBias(Bias):
    """A choice among products of each token with a small table, by the bucket of the pair.

    Args:
        products: Token times table, ``(B, heads, N, buckets)``.
        index: ``index(start, stop)`` gives the buckets of queries ``start`` to ``stop`` with every key,
            ``(stop - start, N)``.
        keys: The products are of the keys, not of the queries.
    """

    structure = "buckets"

    def __init__(self, products: Tensor, index: Callable[[int, int], Tensor], *, keys: bool = False) -> None:
        self.products, self.index, self.keys, self.batch = products, index, keys, len(products)

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        index = self.index(start, stop)  # (rows, N)
        products = self.products.to(dtype)
        if self.keys:
            index = index.transpose(-2, -1).expand(*products.shape[:2], -1, -1)  # (B, heads, N, rows)
            return products.gather(-1, index).transpose(-2, -1)
        return products[..., start:stop, :].gather(-1, index.expand(*products.shape[:2], -1, -1))

    def matrix(self, dtype: torch.dtype) -> Tensor:
        return self.rows(0, self.products.shape[-2], dtype)
