"""Attention inside each of several documents that follow each other in one sequence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from visionpe.attention.flex import compiled


def document_blocks(documents: Tensor) -> BlockMask:
    """What FlexAttention skips between documents; the same for all layers of a pass.

    Args:
        documents: The one that each token is of, ``(N,)``.
    """

    def same(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return documents[query] == documents[key]

    length = len(documents)
    return create_block_mask(same, None, None, length, length, device=str(documents.device))


def attend_documents(q: Tensor, k: Tensor, v: Tensor, blocks: BlockMask, *, scale: float | None = None) -> Tensor:
    """FlexAttention inside each document.

    Args:
        q, k, v: ``(1, heads, N, head_dim)``.
        blocks: Of :func:`document_blocks`.
        scale: Of the logits; default ``head_dim ** -0.5``.

    Returns:
        ``(1, heads, N, head_dim)``.
    """
    run: Any = compiled(q.device.type) if q.is_cuda and not torch.compiler.is_compiling() else flex_attention
    return run(q, k, v, block_mask=blocks, scale=scale)
