"""One entry to attention: the fastest exact kernel for the bias at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from visionpe.bias import Bias, LowRankBias

Kernel = Literal["auto", "sdpa", "low_rank", "chunked", "math"]

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


def _rows(biases: Sequence[Bias], mask: Tensor | None, start: int, stop: int, dtype: torch.dtype) -> Tensor | None:
    """Biases and mask of queries ``start`` to ``stop``, in one additive tensor."""
    part = mask if mask is None or mask.shape[-2] == 1 else mask[..., start:stop, :]
    if not biases:
        return part
    total = biases[0].rows(start, stop, dtype)
    for bias in biases[1:]:
        total = total + bias.rows(start, stop, dtype)
    return _joined(total, part)


def chunks(tokens: int, row_bytes: int) -> list[tuple[int, int]]:
    """Ranges of queries whose rows fit into ``CHUNK_BYTES``."""
    step = max(1, CHUNK_BYTES // max(1, row_bytes))
    return [(start, min(start + step, tokens)) for start in range(0, tokens, step)]


def _row_bytes(q: Tensor, k: Tensor, biases: Sequence[Bias]) -> int:
    return max([bias.batch for bias in biases], default=1) * q.shape[-3] * k.shape[-2] * q.element_size()


def _chunked(
    q: Tensor, k: Tensor, v: Tensor, biases: Sequence[Bias], mask: Tensor | None, dropout_p: float, scale: float
) -> Tensor:
    def part(start: int, stop: int) -> Tensor:
        rows = _rows(biases, mask, start, stop, q.dtype)
        return F.scaled_dot_product_attention(
            q[..., start:stop, :], k, v, attn_mask=rows, dropout_p=dropout_p, scale=scale
        )

    ranges = chunks(q.shape[-2], _row_bytes(q, k, biases))
    if torch.is_grad_enabled():
        return torch.cat([part(*r) for r in ranges], dim=-2)
    # Small results kept between large temporaries would leave the heap full of holes.
    out = q.new_empty(*q.shape[:-1], v.shape[-1])
    for start, stop in ranges:
        out[..., start:stop, :] = part(start, stop)
    return out


def _widened(q: Tensor, k: Tensor, biases: Sequence[LowRankBias], scale: float) -> tuple[Tensor, Tensor]:
    """Queries and keys with the factors of low-rank biases as extra channels; their product needs no further scale."""
    shape = q.shape[:-1]
    left = [bias.left.to(q.dtype).expand(*shape, -1) for bias in biases]
    right = [bias.right.to(k.dtype).expand(*k.shape[:-1], -1) for bias in biases]
    return torch.cat([q * scale, *left], dim=-1), torch.cat([k, *right], dim=-1)


def _math(q: Tensor, k: Tensor, v: Tensor, matrix: Tensor | None, dropout_p: float, scale: float) -> Tensor:
    logits = (q * scale) @ k.transpose(-2, -1)  # (B, heads, N, N)
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
        kernel: ``auto`` picks; ``sdpa`` is PyTorch's kernel with the bias as one matrix, ``low_rank`` the same with
            low-rank biases as extra channels of queries and keys, ``chunked`` the same over chunks of queries,
            ``math`` the formula as written. All agree to 1e-5 in float32.

    Returns:
        ``(B, heads, N, head_dim)``.

    Raises:
        ValueError: If ``kernel`` is unknown.
    """
    if kernel not in get_args(Kernel):
        raise ValueError(f"kernel={kernel!r} is unknown; allowed: {', '.join(get_args(Kernel))}")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if kernel == "math":
        return _math(q, k, v, _matrix(biases, mask, q.dtype), dropout_p, scale)
    low_rank = [bias for bias in biases if isinstance(bias, LowRankBias)]
    width = v.shape[-1]
    if low_rank and kernel in ("auto", "low_rank"):
        q, k = _widened(q, k, low_rank, scale)
        v = F.pad(v, (0, q.shape[-1] - width))  # the fused kernels want equal widths
        biases, scale = [bias for bias in biases if bias not in low_rank], 1.0
    if kernel == "chunked" or (kernel == "auto" and biases and _is_large(q, k, biases)):
        return _chunked(q, k, v, biases, mask, dropout_p, scale)[..., :width]
    matrix = _matrix(biases, mask, q.dtype)
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=matrix, dropout_p=dropout_p, scale=scale)
    return attended[..., :width]


def _is_large(q: Tensor, k: Tensor, biases: Sequence[Bias]) -> bool:
    # An exported graph serves every size, so it cannot branch on one.
    if torch.compiler.is_exporting():
        return False
    return q.shape[-2] * _row_bytes(q, k, biases) > MATRIX_BYTES


@dataclass(frozen=True)
class AttentionWeights:
    """The softmax of the logits, computed for as many queries at a time as are asked for.

    For what has to be weighted besides the values; it costs the product of queries and keys once more. Dropout of the
    weights is left out.

    Args:
        q, k: As given to :func:`attend`.
        biases, mask: Likewise.
    """

    q: Tensor
    k: Tensor
    biases: Sequence[Bias] = ()
    mask: Tensor | None = None

    def rows(self, start: int, stop: int) -> Tensor:
        """Weights of queries ``start`` to ``stop``: ``(B, heads, stop - start, N)``."""
        logits = self.q[..., start:stop, :] * self.q.shape[-1] ** -0.5 @ self.k.transpose(-2, -1)
        extra = _rows(self.biases, self.mask, start, stop, logits.dtype)
        return (logits if extra is None else _joined(logits, extra)).softmax(dim=-1)

    def chunks(self) -> list[tuple[int, int]]:
        """Ranges of queries whose weights fit into a small buffer."""
        return chunks(self.q.shape[-2], self.q.shape[0] * self.q.shape[1] * self.k.shape[-2] * self.q.element_size())
