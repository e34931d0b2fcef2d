"""Arithmetic on positions at full precision, whatever the model around it runs in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.func import functional_call

from visionpe.tracing import has_autocast


def wide_dtype(x: Tensor) -> torch.dtype:
    """float32, or float64 where ``x`` is: bfloat16 has too few bits for positions."""
    return torch.promote_types(x.dtype, torch.float32)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Context in which autocast leaves the arithmetic on the device of ``x`` alone."""
    kind = x.device.type
    if has_autocast(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def apply_wide(module: nn.Module, x: Tensor) -> Tensor:
    """``module(x)`` in the dtype of ``x``: a small network on positions keeps float32 in a 16-bit model."""
    if all(p.dtype == x.dtype for p in module.parameters()):
        return module(x)
    return functional_call(module, {name: p.to(x.dtype) for name, p in module.named_parameters()}, (x,))
