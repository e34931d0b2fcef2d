"""Matrices on blocks of channels, where rotations turn more than pairs."""

from __future__ import annotations

import torch
from torch import Tensor


def turn_blocks(x: Tensor, rotation: Tensor) -> Tensor:
    """Every block of channels of every token by a matrix of its own, in the dtype of the matrices.

    Args:
        x: ``(B, heads, N, head_dim)``.
        rotation: ``([B,] heads, N, blocks, block, block)``.

    Returns:
        Like ``x``, in the dtype of ``x``.
    """
    block = rotation.shape[-1]
    blocks = x.to(rotation.dtype).unflatten(-1, (-1, block))  # (B, heads, N, blocks, block)
    # A sum over the columns of each block: products of tiny matrices are slower one by one.
    turned = sum(rotation[..., i] * blocks[..., i, None] for i in range(block))
    return torch.as_tensor(turned).flatten(-2).to(x.dtype)
