"""Buckets of relative positions, and biases made of several terms by bucket."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from math import log

import torch
from torch import Tensor

from visionpe.attention.bias import Bias, narrowed
from visionpe.tracing import is_tracing


def piecewise_index(offsets: Tensor, ratio: float, stretch: float = 1.0) -> Tensor:
    """Bucket of a signed distance: exact up to ``ratio``, logarithmic beyond, constant in the end.

    Args:
        offsets: Floating, any shape.
        ratio: The paper's alpha; beta is twice and gamma eight times that.
        stretch: Gamma, where the last bucket begins to be the only one, is multiplied by it, but stays above beta.

    Returns:
        Integers (int64) from ``-floor(2 ratio)`` to ``floor(2 ratio)``.
    """
    alpha, beta, gamma = ratio, 2 * ratio, max(8 * stretch, 2) * ratio
    size = offsets.abs()
    far = (alpha + (size.clamp(min=alpha) / alpha).log() / log(gamma / alpha) * (beta - alpha)).round().clamp(max=beta)
    # Truncated last: a bucket clipped to 3.8 is bucket 3.
    return torch.where(size <= alpha, offsets.round(), offsets.sign() * far).long()


def log_index(offsets: Tensor, buckets: int, longest: int) -> Tensor:
    """Bucket of whole signed distances as in DeBERTa: exact up to half of the buckets, logarithmic beyond.

    Args:
        offsets: Whole, any shape.
        buckets: On either side.
        longest: The distance ``longest - 1`` falls into the last of them, and longer ones beyond.

    Returns:
        Integers (int64).
    """
    half = buckets // 2
    size = offsets.abs().clamp(min=half).float()
    far = ((size / half).log() / log((longest - 1) / half) * (half - 1)).ceil().long() + half
    return torch.where(offsets.abs() <= half, offsets, offsets.sign() * far)


class BucketBias(Bias):
    """A choice among products of each token with a small table, by the bucket of the pair.

    Args:
        products: Token times table, ``(B, heads, N, buckets)``.
        index: ``index(start, stop)`` gives the buckets of queries ``start`` to ``stop`` with every key,
            ``(stop - start, N)``, or ``(B, 1, stop - start, N)``.
        keys: The products are of the keys, not of the queries.
    """

    structure = "buckets"

    def __init__(self, products: Tensor, index: Callable[[int, int], Tensor], *, keys: bool = False) -> None:
        # Heads that are computed one after the other ask for the same rows again.
        self.index = index if is_tracing() or hasattr(index, "cache_info") else lru_cache(1)(index)
        self.products, self.keys, self.batch = products, keys, products.shape[0]

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        index = self.index(start, stop)  # ([B, 1,] rows, N)
        products = self.products.to(dtype)
        if self.keys:
            index = index.transpose(-2, -1).expand(*products.shape[:2], -1, -1)  # (B, heads, N, rows)
            return products.gather(-1, index).transpose(-2, -1)
        return products[..., start:stop, :].gather(-1, index.expand(*products.shape[:2], -1, -1))

    def matrix(self, dtype: torch.dtype) -> Tensor:
        return self.rows(0, self.products.shape[-2], dtype)

    def narrow(self, samples: slice, heads: slice) -> BucketBias:
        return BucketBias(narrowed(self.products, samples, heads), partial(self._index_of, samples), keys=self.keys)

    def _index_of(self, samples: slice, start: int, stop: int) -> Tensor:
        index = self.index(start, stop)
        return index if index.ndim == 2 else narrowed(index, samples, slice(None))

    def scaled(self, factor: float) -> BucketBias:
        return BucketBias(self.products * factor, self.index, keys=self.keys)


class SumBias(Bias):
    """Several terms as one."""

    structure = "buckets"

    def __init__(self, terms: list[BucketBias]) -> None:
        self.terms, self.batch = terms, max(term.batch for term in terms)

    def rows(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        total = self.terms[0].rows(start, stop, dtype)
        for term in self.terms[1:]:
            total = total + term.rows(start, stop, dtype)
        return total

    def matrix(self, dtype: torch.dtype) -> Tensor:
        return self.rows(0, self.terms[0].products.shape[-2], dtype)

    def narrow(self, samples: slice, heads: slice) -> SumBias:
        return SumBias([term.narrow(samples, heads) for term in self.terms])

    def scaled(self, factor: float) -> SumBias:
        return SumBias([term.scaled(factor) for term in self.terms])
