"""Matrices on blocks of channels, where rotations turn more than pairs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from visionpe.checks import check_count


def check_block_size(block_size: Any, head_dim: int) -> int:
    """Channels that turn together.

    Raises:
        TypeError: If they are no whole number.
        ValueError: If they are below 2 or do not divide the head dimension.
    """
    if check_count("block_size", block_size, -(2**31)) < 2 or head_dim % block_size:
        raise ValueError(f"block_size={block_size} must be 2 or more and divide head dimension {head_dim}")
    return int(block_size)


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
