"""What every pyramid with windows that move shares when it is adapted: timm's Swin, SwinV2 and SwinV2-CR."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from visionpe.backbones.adapt.adapted import Adapted
from visionpe.backbones.adapt.wrapped import weight_of
from visionpe.backbones.shared.stage_encoding import StageEncoding, WindowKind
from visionpe.backbones.shared.windows import Pair
from visionpe.backbones.swin.stage import SwinStage, WindowFit, WindowPolicy
from visionpe.cache import TableCache

# What timm computes for one size of the map or the window.
SIZED = ("attn_mask", "relative_position_index", "relative_coords_table", "relative_coordinates_log")


class Unsized:
    """Mixin of blocks and attentions that kept tables and masks for one size."""

    def _init_buffers(self) -> None:
        """timm's way to fill them, for models that were built without memory."""


class AdaptedStage(SwinStage):
    """Mixin of stages.

    Attributes:
        block, attention, merging: What blocks, their attention and the merging of patches become.
        told_by: What timm calls that which tells positions in an attention.
        always_partition: Windows move on every map, and are never smaller.
    """

    block: ClassVar[type]
    attention: ClassVar[type]
    merging: ClassVar[type]
    told_by: ClassVar[str]
    window_policy: WindowPolicy = "keep"
    window_fit: WindowFit = "per_axis"
    always_partition: bool

    def trained_map(self) -> Pair:
        """Height and width of the map that timm built the stage for, tokens."""
        return self.output_resolution

    def take_over(self, spec: list[Any], *, first: bool) -> None:
        """Put encodings in the place of timm's positions.

        Args:
            spec: The encodings.
            first: This is the first stage.
        """
        model: Any = self.blocks[0]
        self.grid_size, self.window_size = self.trained_map(), tuple(model.window_size)
        self.always_partition = model.always_partition
        if not isinstance(self.downsample, nn.Identity):
            self.downsample.__class__ = self.merging
        for layer, block in enumerate(self.blocks):
            self._change(block, layer)
        weight, heads = weight_of(model.attn.qkv), model.attn.num_heads
        context = {"num_heads": heads, "depth": len(self.blocks)}
        inside = WindowKind(dim=weight.shape[0] // 3, **context, grid_size=self.window_size)
        self.adds, self.cache = first, TableCache()
        self.pos_encoding = StageEncoding(
            spec,
            dim=weight.shape[1],
            **context,
            grid_size=self.grid_size,
            kinds={"window": inside},
            first=first,
            attention_window=self.window_size,
            device=weight.device,
            dtype=weight.dtype,
        )

    def _change(self, block: Any, layer: int) -> None:
        block.__class__, block.layer = self.block, layer
        attention = block.attn
        attention.__class__ = self.attention
        delattr(attention, self.told_by)
        for module in (block, attention):
            for name in SIZED:
                module._buffers.pop(name, None)
                module._non_persistent_buffers_set.discard(name)

    def shift(self, size: Pair, window: Pair) -> list[int]:
        return [w // 2 for w in window] if self.always_partition else super().shift(size, window)

    def set_size(self, grid_size: Pair, window_size: Pair, always_partition: bool | None) -> None:
        """Take another nominal size of the map and another window, tokens; tables are resized."""
        if always_partition is not None:
            self.always_partition = always_partition
        if not self.always_partition:
            window_size = tuple(min(n, w) for n, w in zip(grid_size, window_size))
        self.grid_size, self.window_size = tuple(grid_size), tuple(window_size)
        self.pos_encoding.set_input_grid(self.grid_size, {"window": self.window_size})


class AdaptedWindows(Adapted):
    """Mixin of models.

    Attributes:
        stage: What the stages become.
        stages_key: What the model calls them.
    """

    stage: ClassVar[type[AdaptedStage]]
    stages_key: ClassVar[str] = "layers"

    def own_stages(self) -> Sequence[Any]:
        """The stages."""
        return getattr(self, self.stages_key)

    def take_over(self, spec: list[Any]) -> None:
        self.take_images()
        for index, stage in enumerate(self.own_stages()):
            stage.__class__ = self.stage
            stage.take_over(spec, first=index == 0)

    def take_images(self) -> None:
        """Let the patch embedding take images of any size."""
        raise NotImplementedError

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers by depth, for layer-wise learning-rate decay; positions of a stage belong to its beginning."""
        groups: dict[str, Any] = dict(super().group_matcher(coarse))
        if coarse:
            return groups
        return groups | {"blocks": [(rf"^{self.stages_key}\.(\d+)\.pos_encoding", (0,)), *groups["blocks"]]}
