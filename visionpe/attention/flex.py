"""Biases on the offset in FlexAttention: the small table is read inside the kernel, and no matrix exists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from visionpe.attention.bias import Bias, OffsetBias

ScoreMod = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


@cache
def compiled(device: str) -> Callable[..., Tensor]:
    """FlexAttention for a type of device."""
    # The compiler writes C++ that does not compile for sizes left open; on a CPU each size has its own kernel.
    return torch.compile(flex_attention, dynamic=False if device == "cpu" else None)


def _offset_term(bias: OffsetBias) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """``term(head, query, key)``: the table's entry for two tokens; where one is a prefix token, its term or 0."""
    table, size, prefix = bias.table.flatten(1).contiguous(), bias.grid.size, bias.grid.prefix
    shared = len(table) == 1
    terms = None if bias.prefix is None else bias.prefix.contiguous()
    # Rank of a token in the flattened table is linear in its coordinates, so an offset is a difference of ranks.
    strides = [prod(2 * n - 1 for n in size[axis + 1 :]) for axis in range(len(size))]
    centre = sum((n - 1) * stride for n, stride in zip(size, strides))

    def rank(token: Tensor) -> Tensor:
        total = torch.zeros_like(token)
        for n, stride in reversed(list(zip(size, strides))):
            total, token = total + token % n * stride, token // n
        return total

    def term(head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        # Prefix tokens read some entry too: an index must not leave the table.
        q, k = ((token - prefix).clamp(min=0) for token in (query, key))
        value = table[torch.zeros_like(head) if shared else head, rank(q) - rank(k) + centre]
        ahead, behind = query < prefix, key < prefix
        if terms is None:
            return torch.where(ahead | behind, torch.zeros_like(value), value)
        which = torch.where(ahead, torch.where(behind, 2, 0), 1)
        return torch.where(ahead | behind, terms[torch.zeros_like(head) if len(terms) == 1 else head, which], value)

    return term


def score_mod(biases: Sequence[OffsetBias]) -> ScoreMod:
    """What FlexAttention calls for every logit: the logit plus the table entries of its offset."""
    terms = [_offset_term(bias) for bias in biases]

    def modify(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        for term in terms:
            score = score + term(head, query, key).to(score.dtype)
        return score

    return modify


def offsets_only(biases: Sequence[Bias]) -> bool:
    """True where there are biases and all of them are tables of offsets."""
    return bool(biases) and all(isinstance(bias, OffsetBias) for bias in biases)


def flex(q: Tensor, k: Tensor, v: Tensor, biases: Sequence[Bias], scale: float) -> Tensor:
    """FlexAttention with every bias as a function of the offset; gradients reach the tables.

    Args:
        q, k, v: ``(B, heads, N, head_dim)``.
        biases: All of them :class:`~visionpe.attention.bias.OffsetBias`.
        scale: Of the logits.

    Raises:
        ValueError: If another bias is among them, or gradients are asked for on a CPU.
    """
    if not offsets_only(biases):
        given = ", ".join(bias.structure for bias in biases) or "no bias"
        raise ValueError(f"kernel='flex' with {given}: it takes biases on the offset alone")
    tables = [t for bias in biases if isinstance(bias, OffsetBias) for t in (bias.table, bias.prefix) if t is not None]
    if q.device.type == "cpu" and torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v, *tables)):
        raise ValueError("kernel='flex' has no gradients on a CPU; allowed there: auto, sdpa, chunked, math")
    run: Any = flex_attention if torch.compiler.is_compiling() else compiled(q.device.type)
    return run(q, k, v, score_mod=score_mod([bias for bias in biases if isinstance(bias, OffsetBias)]), scale=scale)
