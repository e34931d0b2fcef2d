"""timm's ``SwinTransformerV2Cr``: another SwinV2, its network on offsets neither normalised nor bounded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, ClassVar

from timm.layers.format import Format
from timm.models.swin_transformer_v2_cr import (
    SwinTransformerV2Cr,
    SwinTransformerV2CrBlock,
    SwinTransformerV2CrStage,
    WindowMultiHeadAttention,
)
from torch import Tensor

from visionpe.backbones.adapt.adapted import State, adapts
from visionpe.backbones.adapt.swin_v2 import CosineHeads, PostNormBlock
from visionpe.backbones.adapt.windows import AdaptedStage, AdaptedWindows, Unsized
from visionpe.backbones.shared.partition import Partition
from visionpe.backbones.shared.windows import Pair
from visionpe.backbones.swin.stage import Patches, PatchMerging
from visionpe.composition import Composition

NETWORK = "meta_mlp"
# Its layers, by the names that a sequence of them has.
LAYERS = {"fc1": "0", "fc2": "2"}


class PatchesFirst(Patches):
    """Patches of images of any size, channels ahead of places."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, dim, height, width)``, rounded up."""
        return super().forward(x).permute(0, 3, 1, 2)


class AdaptedCrAttention(Unsized, CosineHeads, WindowMultiHeadAttention):
    """Its attention."""


class AdaptedCrBlock(Unsized, PostNormBlock, SwinTransformerV2CrBlock):
    """Its block, with a further norm behind some."""

    def forward(self, x: Tensor, encoding: Composition, partitions: Sequence[Partition]) -> Tensor:
        """Map to map, both ``(B, height, width, dim)``."""
        return self.norm3(super().forward(x, encoding, partitions))


class AdaptedCrStage(AdaptedStage, SwinTransformerV2CrStage):
    """Its stage, on maps with channels ahead of places."""

    block, attention, merging = AdaptedCrBlock, AdaptedCrAttention, PatchMerging
    told_by = NETWORK

    def trained_map(self) -> Pair:
        return self.feat_size

    def set_input_size(self, feat_size: Pair, window_size: Any, always_partition: bool | None = None) -> None:
        """Take another nominal size of the map before the stage, and another window, tokens."""
        self.feat_size = tuple((n + 1) // 2 for n in feat_size) if self.downscale else feat_size
        self.set_size(self.feat_size, window_size, always_partition)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, height, width)`` to ``(B, C', height', width')``."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@adapts(SwinTransformerV2Cr)
class AdaptedSwinV2Cr(AdaptedWindows, SwinTransformerV2Cr):
    """A network on the logarithms of offsets in every block."""

    stage: ClassVar[type[AdaptedStage]] = AdaptedCrStage
    stages_key = "stages"
    position_keys = (f"stages.*.attn.{NETWORK}.*",)

    @classmethod
    def own_encoding(cls, model: Any) -> list[dict[str, Any]]:
        network = model.stages[0].blocks[0].attn.meta_mlp
        return [{"name": "cpb", "form": "raw", "hidden": network.fc1.out_features, "dropout": network.drop1.p}]

    def take_images(self) -> None:
        embed: Any = self.patch_embed
        embed.__class__ = PatchesFirst
        embed.flatten, embed.dynamic_img_pad, embed.strict_img_size = False, False, False
        embed.output_fmt = Format.NHWC  # of what is then permuted
        embed.measure()

    def positions(self, state: State) -> dict[str, Tensor]:
        pattern = re.compile(rf"(stages\.\d+)\.blocks\.(\d+)\.attn\.{NETWORK}\.(fc[12])\.(weight|bias)")
        return {
            f"{match[1]}.pos_encoding.inside.window.cpb.mlp.{match[2]}.{LAYERS[match[3]]}.{match[4]}": value
            for key, value in state.items()
            if (match := pattern.fullmatch(key))
        }
