"""Small matrices that depend on sizes alone: built once, and constants of a compiled graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from operator import index
from typing import Any

import torch
from torch import Tensor, nn

from visionpe.cache import TableCache
from visionpe.precision import wide_dtype, without_autocast
from visionpe.tracing import is_tracing

_KEPT = TableCache(limit=2**25)


def per_size(build: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Decorator of ``build(trained, size, *numbers)``, which gives a matrix in float64.

    What it makes takes a keyword ``like`` besides, a tensor: the matrix comes on its device, in its dtype, at least
    float32. Under ``torch.compile`` the sizes are constants, so that another size is another graph.
    """

    @torch.compiler.assume_constant_result
    def kept(device: torch.device, dtype: torch.dtype, *numbers: Any) -> Tensor:
        key = (build.__qualname__, numbers, device, dtype)
        matrix = _KEPT.get(key, lambda: build(*numbers).to(device, dtype))
        # Of all constants the compiler takes the sizes of parameters alone for fixed: those of the second matrix in a
        # graph would become symbols, whose origin it cannot tell.
        return nn.Parameter(matrix, requires_grad=False) if is_tracing() else matrix

    @wraps(build)
    def call(trained: int, size: int, *numbers: float, like: Tensor) -> Tensor:
        return kept(like.device, wide_dtype(like), index(trained), index(size), *numbers)

    return call


def multiply(x: Tensor, matrices: Mapping[int, Tensor]) -> Tensor:
    """Matrices ``(new, n)`` on axes of ``x``, in their dtype, at least float32, and back; ``x`` itself without any."""
    if not matrices:
        return x
    y = x.to(wide_dtype(x))
    with without_autocast(x):
        for axis, matrix in matrices.items():
            y = torch.tensordot(matrix.to(y.dtype), y, dims=([1], [axis])).movedim(0, axis)
    return y.to(x.dtype)
