"""The attention block that every backbone shares: timm's, told positions at the sites inside it."""

from __future__ import annotations

from typing import Any

from timm.layers import Attention
from timm.models.vision_transformer import Block
from torch import Tensor

from visionpe.attention import AttentionWeights, attend
from visionpe.base import Composition
from visionpe.grid import Grid


class EncodedAttention(Attention):
    """timm's self-attention, same parameters, with the encoding's ``rotate``, ``bias`` and ``mix`` sites."""

    def forward(
        self, x: Tensor, encoding: Composition, grid: Grid, *, layer: int = 0, attn_mask: Tensor | None = None
    ) -> Tensor:
        """Attend.

        Args:
            x: Tokens ``(B, N, dim)``, prefix tokens first.
            encoding: What the tokens are told of their positions.
            grid: Where they stand.
            layer: Index of the block among those that the encoding serves.
            attn_mask: Boolean (True takes part) or additive, broadcastable to ``(B, heads, N, N)``.

        Returns:
            ``(B, N, dim)``.
        """
        batch, tokens, _ = x.shape
        gate = self.gate(x).sigmoid() if self.gate is not None else None
        qkv = self.qkv(x).view(batch, tokens, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, N, head_dim)
        q, k = self.q_norm(q), self.k_norm(k)
        biases = encoding.bias(q, k, grid, layer=layer)  # of the content, not of its rotation
        q, k = encoding.rotate(q, k, grid, layer=layer)
        q, k = q.to(v.dtype), k.to(v.dtype)  # a norm under autocast gives float32
        attended = attend(
            q,
            k,
            v,
            biases=biases,
            mask=attn_mask,
            dropout_p=self.attn_drop.p if self.training else 0.0,
            kernel="auto" if self.fused_attn else "math",
        )
        weights = AttentionWeights(q, k, biases, attn_mask)
        attended = encoding.mix(attended, v, grid, layer=layer, weights=weights)
        x = self.norm(attended.transpose(1, 2).reshape(batch, tokens, -1))
        return self.proj_drop(self.proj(x if gate is None else x * gate))


class EncodedBlock(Block):
    """timm's pre-norm block around :class:`EncodedAttention`."""

    def __init__(self, *args: Any, depth: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "attn_layer": EncodedAttention}, depth=depth)
        self.layer = depth

    def forward(self, x: Tensor, encoding: Composition, grid: Grid, attn_mask: Tensor | None = None) -> Tensor:
        """Tokens ``(B, N, dim)`` to tokens."""
        normed = encoding.inject(self.norm1(x), grid, layer=self.layer)
        attended = self.attn(normed, encoding, grid, layer=self.layer, attn_mask=attn_mask)
        x = x + self.drop_path1(self.ls1(attended))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
