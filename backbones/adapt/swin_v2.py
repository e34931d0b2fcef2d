"""timm's ``SwinTransformerV2``: cosine attention, norms behind attention and MLP, a network on log-spaced offsets."""

from __future__ import annotations

import re
from math import log
from typing import Any, ClassVar

import torch.nn.functional as F
from timm.models.swin_transformer_v2 import (
    SwinTransformerV2,
    SwinTransformerV2Block,
    SwinTransformerV2Stage,
    WindowAttention,
)
from torch import Tensor, nn

from visionpe.backbones.adapt.adapted import State, adapts
from visionpe.backbones.adapt.patches import any_size
from visionpe.backbones.adapt.windows import AdaptedStage, AdaptedWindows, Unsized
from visionpe.backbones.adapt.wrapped import project_without_key_bias
from visionpe.backbones.shared.windowed import MapBlock, WindowHeads
from visionpe.backbones.shared.windows import Pair
from visionpe.backbones.swin.stage import Patches, PatchMerging
from visionpe.encodings.bias.cpb import ContinuousPositionBias

NETWORK = "cpb_mlp"


class CosineHeads(WindowHeads):
    """Mixin of attentions that compare the directions of queries and keys, at a temperature that every head learns."""

    logit_factor = 1.0
    fused_attn = True
    logit_scale: nn.Parameter

    def compared(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        scale = self.logit_scale.view(-1, 1, 1).clamp(max=log(100)).exp()
        return F.normalize(q, dim=-1) * scale, F.normalize(k, dim=-1)


class PostNormBlock(MapBlock):
    """Mixin of blocks whose norms stand behind attention and MLP."""

    def told(self, x: Tensor) -> Tensor:
        return x

    def attention_branch(self, attended: Tensor) -> Tensor:
        return self.drop_path1(self.norm1(attended))

    def mlp_branch(self, x: Tensor) -> Tensor:
        return self.drop_path2(self.norm2(self.mlp(x)))


class AdaptedSwinV2Attention(Unsized, CosineHeads, WindowAttention):
    """Its attention, whose keys have no bias."""

    def projections(self, x: Tensor) -> Tensor:
        return project_without_key_bias(self, x).unflatten(-1, (3, self.num_heads, -1))


class AdaptedSwinV2Block(Unsized, PostNormBlock, SwinTransformerV2Block):
    """Its block."""


class NormedMerging(PatchMerging):
    """Merging of patches with the norm behind the projection."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, height, width, dim)`` to ``(B, height / 2, width / 2, dim_out)``, rounded up."""
        return self.norm(self.reduction(self.gathered(x)))


class AdaptedSwinV2Stage(AdaptedStage, SwinTransformerV2Stage):
    """Its stage. Windows of the pre-training, where timm knows them, are what the network's offsets are measured by."""

    block, attention, merging = AdaptedSwinV2Block, AdaptedSwinV2Attention, NormedMerging
    told_by = NETWORK

    def take_over(self, spec: list[Any], *, first: bool) -> None:
        super().take_over(spec, first=first)
        before: Any = self.blocks[0].attn.pretrained_window_size
        for part in self.pos_encoding.modules():
            if isinstance(part, ContinuousPositionBias) and before[0] > 0:
                part.grid_size = tuple(before)

    def set_input_size(self, feat_size: Pair, window_size: Any, always_partition: bool | None = None) -> None:
        """Take another nominal size of the map before the stage, and another window, tokens."""
        self.input_resolution = self.output_resolution = feat_size
        if not isinstance(self.downsample, nn.Identity):
            self.output_resolution = tuple((n + 1) // 2 for n in feat_size)
        self.set_size(self.output_resolution, window_size, always_partition)


@adapts(SwinTransformerV2)
class AdaptedSwinV2(AdaptedWindows, SwinTransformerV2):
    """A network on log-spaced offsets in every block.

    It measures them by the window of the pre-training where timm knows that, whatever the window at hand (policy
    ``extrapolate``), and else by the window at hand (``interpolate``).
    """

    stage: ClassVar[type[AdaptedStage]] = AdaptedSwinV2Stage
    position_keys = (f"layers.*.attn.{NETWORK}.*",)

    @classmethod
    def own_encoding(cls, model: Any) -> list[dict[str, Any]]:
        attention = [stage.blocks[0].attn for stage in model.layers]
        known = any(each.pretrained_window_size[0] > 0 for each in attention)
        policy, hidden = "extrapolate" if known else "interpolate", attention[0].cpb_mlp[0].out_features
        return [{"name": "cpb", "policy": policy, **({} if hidden == 512 else {"hidden": hidden})}]

    def take_images(self) -> None:
        any_size(self.patch_embed, Patches)

    def positions(self, state: State) -> dict[str, Tensor]:
        pattern = re.compile(rf"(layers\.\d+)\.blocks\.(\d+)\.attn\.{NETWORK}\.(.+)")
        return {
            f"{match[1]}.pos_encoding.inside.window.cpb.mlp.{match[2]}.{match[3]}": value
            for key, value in state.items()
            if (match := pattern.fullmatch(key))
        }
