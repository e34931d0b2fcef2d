"""Attention from queries, keys and values, told positions at the sites inside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from visionpe.attention.bias import Bias
from visionpe.attention.dispatch import AttentionWeights, attend
from visionpe.backbones.shared.mixed_attention import mixed_attention
from visionpe.composition import Composition
from visionpe.grid import Grid
from visionpe.memo import Carried
from visionpe.mixed import MixedGrid

Attended = Callable[[Tensor, AttentionWeights], tuple[Tensor, AttentionWeights]]


def attend_as(attention: Any, v: Tensor, weights: AttentionWeights) -> Tensor:
    """Values ``(B, heads, N, head_dim)`` by their weights, with the dropout and the kernel of a module of timm's.

    Args:
        attention: Has ``attn_drop`` and ``fused_attn``.
        v: The values.
        weights: Queries, keys, and what is done to their logits.
    """
    drop: nn.Dropout = attention.attn_drop
    return attend(
        weights.q,
        weights.k,
        v,
        biases=weights.biases,
        mask=weights.mask,
        dropout_p=drop.p if attention.training else 0.0,
        scale=weights.scale,
        decay=weights.decay,
        kernel="auto" if attention.fused_attn else "math",
        dropout=None if attention.fused_attn else drop,  # as in timm, where hooks on it get the weights
    )


def encoded_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    encoding: Composition,
    grid: Grid | MixedGrid,
    *,
    attended: Attended,
    plain: Any = None,
    layer: int = 0,
    mask: Tensor | None = None,
    scale: float | None = None,
    tokens: Tensor | None = None,
    carried: Carried | None = None,
    content: tuple[Tensor, Tensor] | None = None,
    factor: float = 1.0,
) -> Tensor:
    """Attention with the encoding's sites ``rotate``, ``bias``, ``value``, ``output`` and ``mix``.

    Args:
        q, k, v: After their norms, ``(B, heads, N, head_dim)``; the heads may be some of a module's.
        encoding: What the tokens are told of their positions.
        grid: Where they stand.
        attended: Values by their weights, and the weights, for encodings that read them.
        plain: The module whose dropout and choice of kernel are all that ``attended`` adds to the formula, or None.
        layer: Index of the block among those that the encoding serves.
        mask: Boolean (True takes part) or additive, broadcastable to ``(B, heads, N, N)``.
        scale: Of the logits; default ``head_dim ** -0.5``.
        tokens: What attention was given, ``(B, N, dim)``, for encodings that read it.
        carried: What goes from block to block beside them, for encodings that carry something.
        content: Queries and keys as they were before another encoding turned them, if one did: biases read these.
        factor: On all logits, biases included.

    Returns:
        ``(B, heads, N, head_dim)``.
    """
    if isinstance(grid, MixedGrid):

        def alone(q: Tensor, k: Tensor, v: Tensor, its: Grid, told: Tensor | None) -> Tensor:
            own: dict[str, Any] = {"layer": layer, "scale": scale, "tokens": told, "carried": carried}
            return encoded_attention(q, k, v, encoding, its, attended=attended, **own)

        shared: dict[str, Any] = {"plain": plain, "layer": layer, "scale": scale, "tokens": tokens}
        return mixed_attention(q, k, v, encoding, grid, alone=alone, attended=attended, **shared)
    biases: list[Bias] = []
    decay = None
    if encoding.acts_on_logits() or factor != 1:
        biases = encoding.bias(
            *(content or (q, k)), grid, layer=layer, tokens=tokens
        )  # of the content, not of its rotation
        turned, k = encoding.rotate(q, k, grid, layer=layer, tokens=tokens, carried=carried)
        if turned is not q:
            if scale is None and turned.shape[-1] != q.shape[-1]:
                scale = q.shape[-1] ** -0.5  # of the heads, not of what an encoding makes of them
            q = turned
        if (rule := encoding.logit_rule(grid)) is not None:
            decay, factor = rule.decay, factor * rule.factor
        if factor != 1:
            scale = (q.shape[-1] ** -0.5 if scale is None else scale) * factor
            biases = [bias.scaled(factor) for bias in biases]
    if not q.dtype == k.dtype == v.dtype:  # a norm under autocast gives float32
        q, k = q.to(v.dtype), k.to(v.dtype)
    weights = AttentionWeights(q, k, biases, mask, scale, decay)
    if not encoding.acts("value", "output"):
        out, weights = attended(v, weights)
    else:
        out, weights = attended(encoding.value(v, grid, layer=layer, carried=carried), weights)
        out = encoding.output(out, grid, layer=layer, carried=carried)
    return encoding.mix(out, v, grid, layer=layer, weights=weights)
