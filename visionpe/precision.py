"""Arithmetic on positions at full precision, whatever the model around it runs in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionpe.tracing import has_autocast

_AS_IT_IS = nullcontext()  # one for all: it holds nothing, and blocks ask for it several times


def wide_dtype(x: Tensor) -> torch.dtype:
    """float32, or float64 where ``x`` is: bfloat16 has too few bits for positions."""
    return torch.promote_types(x.dtype, torch.float32)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Context in which autocast leaves the arithmetic on the device of ``x`` alone."""
    kind = x.device.type
    if has_autocast(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return _AS_IT_IS


class WideLinear(nn.Linear):
    """A linear layer in the dtype of its input: a small network on positions keeps float32 in a 16-bit model."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class WideLayerNorm(nn.LayerNorm):
    """A layer norm in the dtype of its input."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = (None if p is None else p.to(x.dtype) for p in (self.weight, self.bias))
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)
