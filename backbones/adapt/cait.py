"""timm's ``Cait``: a table of absolute positions on patches alone; the class token comes after the blocks."""

from __future__ import annotations

from typing import Any

import torch
from timm.models.cait import Cait, LayerScaleBlock, TalkingHeadAttn
from torch import Tensor, nn

from visionpe.attention.dispatch import AttentionWeights
from visionpe.backbones.adapt.adapted import adapts
from visionpe.backbones.adapt.attentions import from_heads, to_heads, told
from visionpe.backbones.adapt.plain import AdaptedPlain
from visionpe.backbones.adapt.told import Told
from visionpe.backbones.adapt.wrapped import is_bare, weight_of
from visionpe.backbones.shared.talking_heads import MixedWeights, mixed_values


def _mixing(layer: Any) -> tuple[Tensor | nn.Module, Tensor | None]:
    """What mixes heads, and a shift: matrices where the call of the layer is no more than that, else the layer."""
    return (layer.weight, layer.bias) if is_bare(layer, nn.Linear) else (layer, None)


@told(TalkingHeadAttn)
class ToldTalkingHeads(TalkingHeadAttn):
    """Attention whose heads speak to each other before and after the softmax."""

    def forward(self, x: Tensor, attn_mask: Told) -> Tensor:
        """Tokens ``(B, N, dim)`` to tokens."""
        x = attn_mask.inject(x)
        q, k, v = (to_heads(t, self.num_heads) for t in self.qkv(x).chunk(3, dim=-1))
        attended = attn_mask.attend(self, q, k, v, tokens=x, attended=self.attended)
        return self.proj_drop(self.proj(from_heads(attended)))

    def attended(self, v: Tensor, weights: AttentionWeights) -> tuple[Tensor, AttentionWeights]:
        """Values by weights that were mixed across heads, and these weights."""
        before, after = _mixing(self.proj_l), _mixing(self.proj_w)
        biases = {"before_bias": before[1], "after_bias": after[1]}
        mixed = MixedWeights(**vars(weights), before=before[0], after=after[0], **biases)
        return mixed_values(mixed, v, self.attn_drop), mixed


class ToldLayerScaleBlock(LayerScaleBlock):
    """A block that hands on what it is told."""

    def forward(self, x: Tensor, attn_mask: Told) -> Tensor:
        """Tokens ``(B, N, dim)`` to tokens."""
        x = x + self.drop_path(self.gamma_1 * self.attn(self.norm1(x), attn_mask=attn_mask))
        return x + self.drop_path(self.gamma_2 * self.mlp(self.norm2(x)))


@adapts(Cait)
class AdaptedCait(AdaptedPlain, Cait):
    """As ViT without prefix tokens, until the class token attends to all."""

    @classmethod
    def own_encoding(cls, model: Any) -> list[dict[str, Any]]:
        return [{"name": "ape"}]

    def take_over(self, spec: list[Any]) -> None:
        for block in self.blocks:
            block.__class__ = ToldLayerScaleBlock
            block.attn.head_dim = weight_of(block.attn.proj).shape[1] // block.attn.num_heads
        super().take_over(spec)

    def prefix_tokens(self) -> list[Tensor]:
        return []

    def _final(self, x: Tensor) -> Tensor:
        return self.norm(x if self.blocks_token_only is None else self.forward_cls(x))

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> Any:
        """Layers by depth, for layer-wise learning-rate decay; positions belong to the stem."""
        layer_of = Cait.group_matcher(self, coarse)
        return lambda name: 0 if name.startswith("pos_encoding.") else layer_of(name)
