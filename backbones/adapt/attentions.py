"""timm's kinds of attention, same parameters: each takes a :class:`Told` where timm has a mask or rotary angles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from timm.layers import Attention, AttentionRope
from timm.layers.diff_attention import DiffAttention
from timm.models.eva import EvaAttention
from timm.models.vision_transformer import DiffParallelScalingBlock, ParallelScalingBlock
from torch import Tensor, nn

from visionpe.backbones.adapt.told import Told
from visionpe.backbones.adapt.wrapped import project_without_key_bias

# timm's class: ours.
TOLD: dict[type, type] = {}
Kind = TypeVar("Kind", bound=type)


def told(original: type) -> Callable[[Kind], Kind]:
    """Class decorator: the decorated attention takes the place of one of timm's."""

    def register(kind: Kind) -> Kind:
        TOLD[original] = kind
        return kind

    return register


def to_heads(x: Tensor, heads: int) -> Tensor:
    """``(B, N, heads * head_dim)`` to ``(B, heads, N, head_dim)``."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def from_heads(x: Tensor) -> Tensor:
    """And back."""
    return x.transpose(1, 2).flatten(2)


def _projected(attention: Any, x: Tensor, gate: Tensor | None) -> Tensor:
    """What follows attention: norm, gate, projection, dropout."""
    x = attention.norm(x)
    return attention.proj_drop(attention.proj(x if gate is None else x * gate))


def _gate(attention: Any, x: Tensor) -> Tensor | None:
    return None if attention.gate is None else attention.gate(x).sigmoid()


@told(Attention)
class ToldAttention(Attention):
    """Of ViT's blocks."""

    def forward(self, x: Tensor, attn_mask: Told, is_causal: bool = False) -> Tensor:
        """Tokens ``(B, N, dim)`` to tokens."""
        x = attn_mask.inject(x)
        gate = _gate(self, x)
        qkv = self.qkv(x).view(*x.shape[:2], 3, self.num_heads, self.head_dim)  # unflatten goes through Python
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attended = attn_mask.attend(self, self.q_norm(q), self.k_norm(k), v, tokens=x)
        return _projected(self, from_heads(attended), gate)


@told(EvaAttention)
class ToldEvaAttention(EvaAttention):
    """EVA's, whose keys have no bias, with its projections together or apart."""

    def forward(self, x: Tensor, rope: Told, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Tokens ``(B, N, dim)`` to tokens."""
        x = rope.inject(x)
        gate = _gate(self, x)
        apart = (self.q_proj(x), self.k_proj(x), self.v_proj(x)) if self.qkv is None else None
        projected = apart or project_without_key_bias(self, x).chunk(3, dim=-1)
        q, k, v = (to_heads(t, self.num_heads) for t in projected)
        attended = rope.attend(self, self.q_norm(q), self.k_norm(k), v, tokens=x)
        return _projected(self, from_heads(attended), gate)


@told(AttentionRope)
class ToldAttentionRope(AttentionRope):
    """timm's attention for rotary positions, several queries to a key if need be."""

    def forward(self, x: Tensor, rope: Told, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Tokens ``(B, N, dim)`` to tokens."""
        x = rope.inject(x)
        gate = _gate(self, x)
        if self.qkv is not None:
            q, k, v = (to_heads(t, self.num_heads) for t in self.qkv(x).chunk(3, dim=-1))
        else:
            q = to_heads(self.q_proj(x), self.num_heads)
            k, v = (to_heads(projection(x), self.num_kv_heads) for projection in (self.k_proj, self.v_proj))
        q, k = self.q_norm(q), self.k_norm(k)
        if self.num_kv_groups > 1:
            k, v = (t.repeat_interleave(self.num_kv_groups, dim=1) for t in (k, v))
        return _projected(self, from_heads(rope.attend(self, q, k, v, tokens=x)), gate)


def _difference(module: Any, x: Tensor, q: Tensor, k: Tensor, v: Tensor, told: Told) -> Tensor:
    """Differential attention: every head has two kinds of queries and keys, and positions say the same to both.

    Args:
        module: Has the weights of the second kind.
        x: What was projected.
        q, k: ``(B, N, 2 heads * head_dim)``.
        v: ``(B, N, heads * 2 head_dim)``.
        told: Of positions.

    Returns:
        ``(B, N, heads * 2 head_dim)``.
    """
    q, k = (norm(to_heads(t, 2 * module.num_heads)) for norm, t in ((module.q_norm, q), (module.k_norm, k)))
    share = module._compute_lambda().type_as(q)
    v = to_heads(v, module.num_heads)
    kinds = zip(*(t.unflatten(1, (-1, 2)).unbind(2) for t in (q, k)))
    first, second = (told.attend(module, q, k, v, tokens=x) for q, k in kinds)
    return from_heads(module.sub_norm(first - share * second) * (1 - module.lambda_init))


@told(DiffAttention)
class ToldDiffAttention(DiffAttention):
    """Differential attention."""

    def forward(self, x: Tensor, attn_mask: Told, is_causal: bool = False) -> Tensor:
        """Tokens ``(B, N, dim)`` to tokens."""
        x = attn_mask.inject(x)
        q, k, v = self.qkv(x).chunk(3, dim=2)
        x = _difference(self, x, q, k, v, attn_mask)
        return self.proj_drop(self.proj(self.norm(x)))


@told(ParallelScalingBlock)
class ToldParallelBlock(ParallelScalingBlock):
    """A block whose attention and MLP stand side by side and share their projections."""

    def forward(self, x: Tensor, attn_mask: Told, is_causal: bool = False) -> Tensor:
        """Tokens ``(B, N, dim)`` to tokens."""
        seen = attn_mask.inject(self.in_norm(x))
        mlp, q, k, v = _split(self, seen)
        q, k, v = (to_heads(t, self.num_heads) for t in (q, k, v))
        attended = from_heads(attn_mask.attend(self, self.q_norm(q), self.k_norm(k), v, tokens=seen))
        if self.out_proj is not None:
            y = self.out_proj(torch.cat((attended, mlp), dim=-1))
        else:
            y = self.attn_out_proj(attended) + self.mlp_out_proj(mlp)
        return x + self.drop_path(self.ls(y))


@told(DiffParallelScalingBlock)
class ToldDiffParallelBlock(DiffParallelScalingBlock):
    """The same with differential attention."""

    def forward(self, x: Tensor, attn_mask: Told, is_causal: bool = False) -> Tensor:
        """Tokens ``(B, N, dim)`` to tokens."""
        seen = attn_mask.inject(self.in_norm(x))
        mlp, q, k, v = _split(self, seen)
        y = self.out_proj(torch.cat((_difference(self, seen, q, k, v, attn_mask), mlp), dim=-1))
        return x + self.drop_path(self.ls(y))


def _split(block: Any, x: Tensor) -> tuple[Tensor, ...]:
    """What the MLP hands to the last projection, and queries, keys, values."""
    mlp, q, k, v = torch.split(block.in_proj(x), block.in_split, dim=-1)
    mlp = mlp if block.mlp_bias is None else mlp + block.mlp_bias
    return block.mlp_drop(block.mlp_act(mlp)), q, k, v


def tell_blocks(blocks: nn.Module) -> list[Any]:
    """Change every attention in these blocks for the one that is told positions.

    Returns:
        Those modules, in order.

    Raises:
        TypeError: If a block has an attention that is not known.
    """
    told: list[Any] = []
    for index, block in enumerate(blocks.children()):
        before = len(told)
        for module in block.modules():
            if type(module) in TOLD:
                module.__class__ = TOLD[type(module)]
                told.append(module)
        if len(told) == before:
            kind = type(block)
            raise TypeError(
                f"model: block {index} is {kind.__module__}.{kind.__qualname__}, whose attention is not known; "
                f"allowed: blocks with {', '.join(sorted(each.__name__ for each in TOLD))}"
            )
    return told
