"""timm's ``SwinTransformer``: Swin, and S3, whose stages have windows of their own."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any, ClassVar

import torch
from timm.models.swin_transformer import (
    SwinTransformer,
    SwinTransformerBlock,
    SwinTransformerStage,
    WindowAttention,
)
from torch import Tensor, nn

from visionpe.backbones.adapt.adapted import State, adapts
from visionpe.backbones.adapt.patches import any_size
from visionpe.backbones.adapt.windows import AdaptedStage, AdaptedWindows, Unsized
from visionpe.backbones.shared.windowed import MapBlock, WindowHeads
from visionpe.backbones.shared.windows import Pair
from visionpe.backbones.swin.stage import Patches, PatchMerging
from visionpe.backbones.swin.weights import as_map

TABLE = "relative_position_bias_table"


class AdaptedSwinAttention(Unsized, WindowHeads, WindowAttention):
    """Its attention."""


class AdaptedSwinBlock(Unsized, MapBlock, SwinTransformerBlock):
    """Its block."""


class AdaptedSwinStage(AdaptedStage, SwinTransformerStage):
    """Its stage."""

    block, attention, merging = AdaptedSwinBlock, AdaptedSwinAttention, PatchMerging
    told_by = TABLE

    def set_input_size(self, feat_size: Pair, window_size: Any, always_partition: bool | None = None) -> None:
        """Take another nominal size of the map before the stage, and another window, tokens."""
        self.input_resolution = self.output_resolution = feat_size
        if not isinstance(self.downsample, nn.Identity):
            self.output_resolution = tuple((n + 1) // 2 for n in feat_size)
        self.set_size(self.output_resolution, window_size, always_partition)


@adapts(SwinTransformer)
class AdaptedSwin(AdaptedWindows, SwinTransformer):
    """A table of relative positions in every block."""

    stage: ClassVar[type[AdaptedStage]] = AdaptedSwinStage
    position_keys = (f"layers.*.attn.{TABLE}",)

    @classmethod
    def own_encoding(cls, model: Any) -> list[dict[str, Any]]:
        return [{"name": "rpb"}]

    def take_images(self) -> None:
        any_size(self.patch_embed, Patches)

    def positions(self, state: State) -> dict[str, Tensor]:
        blocks: dict[int, dict[int, Tensor]] = defaultdict(dict)
        for key, value in state.items():
            if match := re.fullmatch(rf"layers\.(\d+)\.blocks\.(\d+)\.attn\.{TABLE}", key):
                blocks[int(match[1])][int(match[2])] = value
        return {
            f"layers.{stage}.pos_encoding.inside.window.rpb.table": torch.stack(
                [as_map(tables[i], self.layers[stage].window_size, None) for i in sorted(tables)]
            )
            for stage, tables in blocks.items()
            if stage < len(self.layers)
        }
