"""One entry to attention: the fastest exact kernel for the bias at hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from visionpe.bias import Bias

Kernel = Literal["auto", "sdpa", "chunked", "math"]

# A bias matrix above this is built in chunks of queries, so that memory stays linear in the tokens.
MATRIX_BYTES = 256 * 2**20
CHUNK_BYTES = 64 * 2**20


def _joined(bias: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return bias
    if mask.dtype == torch.bool:
        return bias.masked_fill(~mask, float("-inf"))
    return bias + mask.to(bias.dtype)


def _matrix(biases: Sequence[Bias], mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if not biases:
        return mask
    total = biases[0].matrix(dtype)
    for bias in biases[1:]:
        total = total + bias.matrix(dtype)
    return _joined(total, mask)


def _chunked(
    q: Tensor, k: Tensor, v: Tensor, biases: Sequence[Bias], mask: Tensor | None, dropout_p: float, scale: float | None
) -> Tensor:
    tokens = q.shape[-2]
    step = max(1, CHUNK_BYTES // (q.shape[-3] * k.shape[-2] * q.element_size()))
    outputs = []
    for start in range(0, tokens, step):
        stop = min(start + step, tokens)
        rows = biases[0].rows(start, stop, q.dtype)
        for bias in biases[1:]:
            rows = rows + bias.rows(start, stop, q.dtype)
        part = mask if mask is None or mask.shape[-2] == 1 else mask[..., start:stop, :]
        outputs.append(
            F.scaled_dot_product_attention(
                q[..., start:stop, :], k, v, attn_mask=_joined(rows, part), dropout_p=dropout_p, scale=scale
            )
        )
    return torch.cat(outputs, dim=-2)


def _math(q: Tensor, k: Tensor, v: Tensor, matrix: Tensor | None, dropout_p: float, scale: float | None) -> Tensor:
    logits = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-2, -1)  # (B, heads, N, N)
    if matrix is not None:
        logits = _joined(logits, matrix)
    return F.dropout(logits.softmax(dim=-1), dropout_p) @ v


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    biases: Sequence[Bias] = (),
    mask: Tensor | None = None,
    dropout_p: float = 0.0,
    scale: float | None = None,
    kernel: Kernel = "auto",
) -> Tensor:
    """Scaled dot-product attention with structured biases.

    Args:
        q, k, v: Queries, keys and values, ``(B, heads, N, head_dim)``.
        biases: Terms of the scaled logits; none of them means that no matrix is built.
        mask: Boolean (True takes part) or additive, broadcastable to ``(B, heads, N, N)``.
        dropout_p: Dropout of the attention weights, 0 to 1.
        scale: Of the logits; default ``head_dim ** -0.5``.
        kernel: ``auto`` picks; ``sdpa`` is PyTorch's kernel with the bias as one matrix, ``chunked`` the same over
            chunks of queries, ``math`` the formula as written. All agree to 1e-5 in float32.

    Returns:
        ``(B, heads, N, head_dim)``.

    Raises:
        ValueError: If ``kernel`` is unknown.
    """
    if kernel not in get_args(Kernel):
        raise ValueError(f"kernel={kernel!r} is unknown; allowed: {', '.join(get_args(Kernel))}")
    if kernel == "math":
        return _math(q, k, v, _matrix(biases, mask, q.dtype), dropout_p, scale)
    if kernel == "auto":
        kernel = "chunked" if biases and _is_large(q, k) else "sdpa"
    if kernel == "chunked" and biases:
        return _chunked(q, k, v, biases, mask, dropout_p, scale)
    matrix = _matrix(biases, mask, q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=matrix, dropout_p=dropout_p, scale=scale)


def _is_large(q: Tensor, k: Tensor) -> bool:
    # An exported graph serves every size, so it cannot branch on one.
    if torch.compiler.is_exporting():
        return False
    return q.shape[-3] * q.shape[-2] * k.shape[-2] * q.element_size() > MATRIX_BYTES
