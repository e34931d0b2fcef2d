"""The small transformer that reads the digits of a coordinate, in whatever precision its input has."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionpe.precision import WideLayerNorm, WideLinear


def decimal_digits(positions: Tensor, count: int) -> Tensor:
    """Decimal digits of non-negative integers, most significant first, zeros ahead: ``(..., count)``."""
    powers = 10 ** torch.arange(count - 1, -1, -1, device=positions.device)
    return positions[..., None] // powers % 10


class DigitBlock(nn.Module):
    """Pre-norm transformer block of the encoder, computed in the dtype of its input."""

    def __init__(self, dim: int, num_heads: int, **factory: Any) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = WideLayerNorm(dim, **factory)
        self.qkv = WideLinear(dim, 3 * dim, **factory)
        self.proj = WideLinear(dim, dim, **factory)
        self.norm2 = WideLayerNorm(dim, **factory)
        self.fc1 = WideLinear(dim, 4 * dim, **factory)
        self.fc2 = WideLinear(4 * dim, dim, **factory)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Sequences ``(n, length, dim)`` to sequences; ``mask`` is additive, ``(n or 1, 1, length, length)``."""
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (n, heads, length, head_dim)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        x = x + self.proj(attended)
        hidden = self.fc1(self.norm2(x))
        return x + self.fc2(F.gelu(hidden, approximate="tanh"))
