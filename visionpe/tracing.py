"""What differs while torch traces a graph, the same in every release of torch that is supported."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


@torch.compiler.assume_constant_result  # traced, torch 2.9 says True under torch.compile too
def is_exporting() -> bool:
    """Whether ``torch.export`` is at work."""
    return torch.compiler.is_exporting()


@torch.compiler.assume_constant_result  # torch 2.9 cannot trace what it calls
def has_autocast(device_type: str) -> bool:
    """Whether autocast knows this type of device."""
    return torch.amp.is_autocast_available(device_type)


# The plain min and max would tie an exported graph to the order of two symbols; torch.sym_min and torch.sym_max of two
# numbers are what torch 2.9 cannot compile.


def smaller(a: Any, b: Any) -> Any:
    """The minimum of two whole numbers, each of which may be a symbol."""
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else torch.sym_min(a, b)


def larger(a: Any, b: Any) -> Any:
    """The maximum of two whole numbers, each of which may be a symbol."""
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else torch.sym_max(a, b)


def is_tracing() -> bool:
    """Whether a graph is being made of what runs: by ``torch.compile``, ``torch.export`` or ``torch.jit.trace``."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def number(n: Any) -> Any:
    """A length of a tensor as a whole number, or the symbol that it is; ``torch.jit.trace`` gives tensors instead."""
    return int(n) if isinstance(n, Tensor) else n


def map_size(x: Tensor) -> tuple[int, int]:
    """Height and width of a map ``(B, height, width, C)``."""
    return number(x.shape[1]), number(x.shape[2])


def is_transformed() -> bool:
    """Whether ``vmap`` or another transformation of ``torch.func`` is at work: it takes no ``out=``."""
    return torch._C._are_functorch_transforms_active()
