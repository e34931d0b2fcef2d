"""Attention among the tokens of each of several images that share a tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from visionpe.attention.dispatch import AttentionWeights
from visionpe.attention.documents import attend_documents, document_blocks
from visionpe.composition import Composition
from visionpe.mixed import MixedGrid

# Sites after which the attention of an image is no longer the plain kernel of queries, keys and values.
APART = ("bias", "value", "output", "mix")


def mixed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    encoding: Composition,
    grid: MixedGrid,
    *,
    alone: Callable[..., Tensor],
    attended: Callable[..., Any],
    plain: Any,
    layer: int,
    scale: float | None,
    tokens: Tensor | None,
) -> Tensor:
    """Attention of all images, each among its own tokens.

    One call of a kernel serves all of them where nothing but rotations tells positions: masked where images are padded,
    by documents in FlexAttention where they are packed on a GPU. Otherwise each size has its own call.

    Args:
        q, k, v: ``(B, heads, N, head_dim)`` in the layout of ``grid``.
        encoding: What the tokens are told of their positions.
        grid: Where they stand.
        alone: ``alone(q, k, v, grid, tokens)`` is the attention of images of one size.
        attended: Values by their weights, and the weights.
        plain: The module whose dropout and choice of kernel are all that ``attended`` adds to the formula, or None.
        layer: Index of the block among those that the encoding serves.
        scale: Of the logits; default ``head_dim ** -0.5``.
        tokens: What attention was given, for encodings that read it.

    Returns:
        ``(B, heads, N, head_dim)``.
    """
    if len(grid.parts) > 1 and _serves_all(q, encoding, grid, plain):
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        if encoding.acts_on_logits():
            q, k = _turned(q, k, encoding, grid, layer)
        q, k = q.to(v.dtype), k.to(v.dtype)  # a norm under autocast gives float32
        if grid.packed:
            blocks = grid.keep(("blocks", q.device), lambda: document_blocks(grid.image_of_token(q.device)))
            return attend_documents(q, k, v, blocks, scale=scale)
        mask = grid.valid(q.device)[:, None, None]
        return attended(v, AttentionWeights(q, k, [], mask, scale, None))[0]

    def of_one_size(its: Any, *parts: Tensor | None) -> Tensor:
        *heads, told = parts
        return alone(*(t.transpose(1, 2) for t in heads if t is not None), its, told).transpose(1, 2)

    told = tokens if encoding.reads_tokens else None
    return grid.each(of_one_size, *(t.transpose(1, 2) for t in (q, k, v)), told).transpose(1, 2)


def _serves_all(q: Tensor, encoding: Composition, grid: MixedGrid, plain: Any) -> bool:
    if plain is None or encoding.acts(*APART) or encoding.reads_tokens:
        return False
    if grid.packed and not (q.is_cuda and plain.fused_attn and not (plain.training and plain.attn_drop.p)):
        return False
    rules = [encoding.logit_rule(part.grid) for part in grid.parts]
    return all(rule is None or rule.decay is None for rule in rules)


def _turned(q: Tensor, k: Tensor, encoding: Composition, grid: MixedGrid, layer: int) -> tuple[Tensor, Tensor]:
    """Queries and keys by the positions of their own image, and queries by the factor of its logits."""
    turned: list[list[Tensor]] = [[], []]
    for part, its_q, its_k in zip(grid.parts, grid.split(q.transpose(1, 2)), grid.split(k.transpose(1, 2))):
        own_q, own_k = encoding.rotate(its_q.transpose(1, 2), its_k.transpose(1, 2), part.grid, layer=layer)
        if (rule := encoding.logit_rule(part.grid)) is not None and rule.factor != 1:
            own_q = own_q * rule.factor
        for all_of_it, t in zip(turned, (own_q, own_k)):
            all_of_it.append(t.transpose(1, 2))
    joined_q, joined_k = (grid.join(t).transpose(1, 2) for t in turned)
    return joined_q, joined_k


def dropped(drop: Any, x: Tensor, grid: Any) -> Tensor:
    """Stochastic depth for each image, where several share a row of the tensor.

    Args:
        drop: The module, timm's ``DropPath``.
        x: ``(B, N, dim)`` in the layout of ``grid``.
        grid: Of one size, or mixed.
    """
    if not (isinstance(grid, MixedGrid) and grid.packed and drop.training and getattr(drop, "drop_prob", 0)):
        return drop(x)
    factors = drop(x.new_ones(grid.batch, 1))  # 0, or what keeps the mean
    return x * factors[grid.image_of_token(x.device)][None]
