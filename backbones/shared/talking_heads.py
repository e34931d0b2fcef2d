"""Attention whose heads speak to each other, before and after the softmax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from visionpe.attention import kernels
from visionpe.attention.dispatch import AttentionWeights
from visionpe.backbones.shared.block import EncodedAttention
from visionpe.tracing import is_exporting


@dataclass(frozen=True)
class MixedWeights(AttentionWeights):
    """The softmax of logits that were mixed across heads, mixed again.

    Args:
        before, after: Matrices ``(heads, heads)``, from the heads of the logits and of the softmax to those of the
            result, or modules that make ``(..., heads)`` of ``(..., heads)``; None for none.
        before_bias, after_bias: What is added to each head, ``(heads,)``, or None.
    """

    before: Tensor | nn.Module | None = None
    after: Tensor | nn.Module | None = None
    before_bias: Tensor | None = None
    after_bias: Tensor | None = None

    distribution: ClassVar[bool] = False

    def rows(self, start: int, stop: int) -> Tensor:
        scale = self.q.shape[-1] ** -0.5 if self.scale is None else self.scale
        logits = self.q[..., start:stop, :] * scale @ self.k.transpose(-2, -1)
        bias = kernels.rows(self.biases, None, start, stop, logits.dtype)
        logits = logits if bias is None else logits + bias
        logits = logits if self.decay is None else self.decay.rows(logits, start, stop)
        logits = _across_heads(self.before, self.before_bias, logits)
        # Last, since what is masked out of one head must not reach the others.
        logits = kernels.weights(logits, (), self.mask, None, start, stop)
        return _across_heads(self.after, self.after_bias, logits)

    def of(self, values: Tensor) -> Tensor:
        return mixed_values(self, values, nn.Identity())


def _across_heads(matrix: Tensor | nn.Module | None, bias: Tensor | None, x: Tensor) -> Tensor:
    """Heads of ``(B, heads, rows, N)`` mixed, in one pass without a sum beside the product."""
    if isinstance(matrix, nn.Module):
        mixed: Tensor = matrix(x.movedim(1, -1)).movedim(-1, 1)
        return mixed
    shift = None if bias is None else bias.to(x.dtype)[:, None]
    if matrix is None:
        return x if shift is None else x + shift[..., None]
    matrix, flat = matrix.to(x.dtype), x.flatten(2)
    mixed = matrix @ flat if shift is None else torch.baddbmm(shift, matrix.expand(len(flat), -1, -1), flat)
    return mixed.unflatten(2, x.shape[2:])


def mixed_values(weights: MixedWeights, v: Tensor, drop: nn.Module) -> Tensor:
    """Values ``(B, heads, N, head_dim)`` by such weights, of which a part at a time is held."""
    whole = is_exporting()  # the graph serves every size, so it cannot be cut into a number of chunks
    chunks = [(0, weights.q.shape[-2])] if whole else weights.chunks()
    return torch.cat([drop(weights.rows(*chunk)).to(v.dtype) @ v for chunk in chunks], dim=-2)


class TalkingHeadsAttention(EncodedAttention):
    """Every head has a mix of the logits of all heads, and of their softmaxes; both are the heads' own at first.

    Source: "Talking-Heads Attention", arXiv 2003.02436, as in MiniViT, arXiv 2204.07154 (weight transformation).

    Args:
        args, kwargs: Of timm's attention.
    """

    plain_heads = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        factory = {"device": kwargs.get("device"), "dtype": kwargs.get("dtype")}
        self.mix_logits = nn.Parameter(torch.eye(self.num_heads, **factory))
        self.mix_weights = nn.Parameter(torch.eye(self.num_heads, **factory))

    def attended(self, v: Tensor, weights: AttentionWeights) -> tuple[Tensor, AttentionWeights]:
        mixed = MixedWeights(**vars(weights), before=self.mix_logits, after=self.mix_weights)
        return mixed_values(mixed, v, self.attn_drop), mixed
