"""One entry to attention: the fastest exact kernel for the bias at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from visionpe.attention import flex, kernels
from visionpe.attention.axial import axial_attention, axial_bias
from visionpe.attention.bias import AxesBias, Bias, LowRankBias
from visionpe.attention.logits import Decay
from visionpe.attention.signals.bias import signal_bias
from visionpe.checks import check_choice
from visionpe.precision import without_autocast
from visionpe.tracing import is_exporting, is_tracing, is_transformed

Kernel = Literal["auto", "sdpa", "low_rank", "flex", "chunked", "small", "math"]


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    biases: Sequence[Bias] = (),
    mask: Tensor | None = None,
    dropout_p: float = 0.0,
    scale: float | None = None,
    decay: Decay | None = None,
    kernel: Kernel = "auto",
    dropout: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Scaled dot-product attention with structured biases.

    Args:
        q, k, v: Queries, keys and values, ``(B, heads, N, head_dim)``.
        biases: Terms of the scaled logits; none of them means that no matrix is built.
        mask: Boolean (True takes part) or additive, broadcastable to ``(B, heads, N, N)``.
        dropout_p: Dropout of the attention weights, 0 to 1.
        scale: Of the logits; default ``head_dim ** -0.5``.
        decay: What weakens the logits of far keys; it has one kernel, over parts with linear memory.
        kernel: ``auto`` picks; ``sdpa`` is PyTorch's kernel with the bias as one matrix, ``low_rank`` the same with
            low-rank biases as extra channels of queries and keys, ``flex`` FlexAttention for biases on the offset,
            ``chunked`` PyTorch's kernel over parts with linear memory, ``small`` the formula over parts that stay in
            a cache (without gradients), ``math`` the formula as written. All agree to 1e-5 in float32.
        dropout: With ``math`` alone, in place of ``dropout_p``: called with the weights, ``(B, heads, N, N)``, so that
            hooks of a module see them. Attention along the axes has none of all pairs, and calls nothing.

    Returns:
        ``(B, heads, N, head_dim)``.

    Raises:
        ValueError: If ``kernel`` is unknown, ``dropout`` comes with another than ``math``, or an axial bias with a
            mask, a second bias or a decay.
    """
    if kernel == "auto" and decay is None and dropout is None:  # the common ones first: this runs in every block
        if v.shape[-1] != k.shape[-1]:
            if kernels.uneven_and_long(q, k, v):
                scale = q.shape[-1] ** -0.5 if scale is None else scale
                attended = attend(*kernels.evened(q, k, v), biases=biases, mask=mask, dropout_p=dropout_p, scale=scale)
                return attended[..., : v.shape[-1]]
            if all(bias.plain for bias in biases) and _is_unfused(q, k, v):
                return kernels.small(q, k, v, biases, mask, dropout_p, q.shape[-1] ** -0.5 if scale is None else scale)
        if not biases:
            mask = mask if mask is None else kernels.matrix((), mask, q.dtype)
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p, scale=scale)
    if kernel != "auto":
        check_choice("kernel", kernel, Kernel)
    if dropout is not None and kernel != "math":
        raise ValueError(f"dropout is called with the weights, which kernel={kernel!r} does not give; allowed: 'math'")
    if (axial := axial_bias(biases, mask)) is not None:  # another attention, with one kernel
        if decay is not None:
            raise ValueError("decay: attention along rows, then columns has no logits of all pairs; allowed: None")
        return axial_attention(q, k, v, axial, dropout_p=dropout_p, scale=scale)
    plain = scale is None and decay is None and kernel == "auto"
    if plain and (signal := signal_bias(biases, k, mask, dropout_p)) is not None:
        return signal.attend(k, v, mask)
    wide = torch.promote_types(q.dtype, torch.float32)
    if q.dtype != wide and any(bias.wide for bias in biases):
        with without_autocast(q):
            every = (t.to(wide) for t in (q, k, v))
            options: dict[str, Any] = {"biases": biases, "mask": mask, "dropout_p": dropout_p, "scale": scale}
            return attend(*every, **options, decay=decay, kernel=kernel, dropout=dropout).to(v.dtype)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if decay is not None:
        return kernels.decayed(q, k, v, biases, mask, dropout_p, scale, decay, dropout)
    if kernel == "math":
        return kernels.math(q, k, v, biases, mask, dropout_p, scale, dropout)
    if kernel == "small" or (kernel == "auto" and _is_unfused(q, k, v)):
        return kernels.small(q, k, v, biases, mask, dropout_p, scale)
    if kernel == "flex" or (kernel == "auto" and _flex_is_best(q, k, biases, mask, dropout_p)):
        if mask is not None or dropout_p:
            raise ValueError(f"kernel='flex' takes no mask and no dropout, got dropout_p={dropout_p}; use another")
        return flex.flex(q, k, v, biases, scale)
    low_rank = [bias for bias in biases if isinstance(bias, LowRankBias)]
    width = v.shape[-1]
    if low_rank and (kernel == "low_rank" or (kernel == "auto" and _channels_are_best(q, low_rank))):
        q, k, v = kernels.with_low_rank_channels(q, k, v, low_rank, scale)
        biases, scale = [bias for bias in biases if bias not in low_rank], 1.0
    if kernel == "chunked" or (kernel == "auto" and biases and _is_large(q, k, biases, mask)):
        return kernels.chunked(q, k, v, biases, mask, dropout_p, scale)[..., :width]
    if biases and is_transformed() and torch.is_grad_enabled():
        # `vmap` does not see that a bias below it needs a gradient, which the fused kernel of a CPU does not give.
        return kernels.math(q, k, v, biases, mask, dropout_p, scale)[..., :width]
    matrix = kernels.matrix(biases, mask, q.dtype)
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=matrix, dropout_p=dropout_p, scale=scale)
    return attended[..., :width]


def _is_unfused(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """True on a CPU where the fused kernel is out, as it takes values as wide as keys alone."""
    if v.shape[-1] == k.shape[-1] or q.device.type != "cpu":
        return False
    narrow = q.dtype in (torch.float16, torch.bfloat16)  # PyTorch's own formula adds up in float32
    return not (narrow or torch.is_grad_enabled() or is_tracing())


def _is_large(q: Tensor, k: Tensor, biases: Sequence[Bias], mask: Tensor | None) -> bool:
    """True where the matrix of the biases is better built in parts."""
    # An exported graph serves every size, so it cannot branch on one.
    if is_exporting():
        return False
    passing = not (torch.is_grad_enabled() or all(bias.kept for bias in biases))  # used once, and gone
    limit = 2 * kernels.CHUNK_BYTES if passing and q.device.type == "cpu" else kernels.MATRIX_BYTES
    return kernels.matrix_bytes(q, k, biases, mask) > limit


def _flex_is_best(q: Tensor, k: Tensor, biases: Sequence[Bias], mask: Tensor | None, dropout_p: float) -> bool:
    if not q.is_cuda or mask is not None or dropout_p or not flex.offsets_only(biases):
        return False
    return _is_large(q, k, biases, mask)


def _channels_are_best(q: Tensor, biases: Sequence[LowRankBias]) -> bool:
    """Extra channels cost their share of the products; on a CPU rows of a bias that is cheap to build cost less."""
    cheap = all(isinstance(bias, AxesBias) for bias in biases)
    narrow = q.dtype in (torch.float16, torch.bfloat16)  # as channels the terms are added up in float32
    rows = cheap and not narrow and q.device.type == "cpu" and not torch.is_grad_enabled()
    return not rows or is_exporting()


@dataclass(frozen=True)
class AttentionWeights:
    """The softmax of the logits, computed for as many queries at a time as are asked for.

    For what has to be weighted besides the values; it costs the product of queries and keys once more. Dropout of the
    weights is left out.

    Args:
        q, k: As given to :func:`attend`.
        biases, mask, scale, decay: Likewise.
    """

    q: Tensor
    k: Tensor
    biases: Sequence[Bias] = ()
    mask: Tensor | None = None
    scale: float | None = None
    decay: Decay | None = None

    # Whether what rows gives a query is no less than 0 and adds up to one.
    distribution: ClassVar[bool] = True

    def rows(self, start: int, stop: int) -> Tensor:
        """Weights of queries ``start`` to ``stop``: ``(B, heads, stop - start, N)``."""
        scale = self.q.shape[-1] ** -0.5 if self.scale is None else self.scale
        logits = self.q[..., start:stop, :] * scale @ self.k.transpose(-2, -1)
        return kernels.weights(logits, self.biases, self.mask, self.decay, start, stop)

    def of(self, values: Tensor) -> Tensor:
        """Other values, ``(1 or B, 1 or heads, N, channels)``, by these weights: ``(B, heads, N, channels)``."""
        if (
            is_exporting()
        ):  # kernels ask whether values are as wide as keys, of which a graph for every size knows nothing
            return self.rows(0, self.q.shape[-2]) @ values
        values = values.expand(*self.k.shape[:2], -1, -1)
        return attend(self.q, self.k, values, biases=self.biases, mask=self.mask, scale=self.scale, decay=self.decay)

    def chunks(self) -> list[tuple[int, int]]:
        """Ranges of queries whose weights fit into a small buffer."""
        row = self.q.shape[0] * self.q.shape[1] * self.k.shape[-2] * self.q.element_size()
        return kernels.ranges(self.q.shape[-2], 4 * kernels.CHUNK_BYTES // max(row, 1))
