"""timm's ``HieraDet``: the image encoder of SAM 2, with windows that change from stage to stage."""

from __future__ import annotations

from typing import Any

from timm.models.hieradet_sam2 import HieraDet, HieraPatchEmbed, MultiScaleAttention, MultiScaleBlock
from torch import Tensor

from visionpe.backbones.adapt.adapted import State, adapts
from visionpe.backbones.adapt.patches import any_size
from visionpe.backbones.adapt.pooling import AdaptedPooling, PooledAttention, PooledBlock, map_of_images
from visionpe.backbones.shared.pooling import pool_map
from visionpe.backbones.shared.windows import Pair
from visionpe.backbones.swin.stage import Patches
from visionpe.graphs import one_node

# timm's name of a table: ours.
TABLES = {"pos_embed": "table", "pos_embed_window": "window_table"}
# Where the encoder stands in a file of the whole of SAM 2.
TRUNK = ("image_encoder.trunk.", "trunk.")
# As SAM 2 was trained, pixels, where a model does not say it.
TRAINED_SIZE = (1024, 1024)


class AdaptedHieraDetAttention(PooledAttention, MultiScaleAttention):
    """Its attention; windows beyond the map hold the biases of the projection, with which it was trained."""

    padding = "tokens"


class AdaptedHieraDetBlock(PooledBlock, MultiScaleBlock):
    """Its block."""

    def kept(self, x: Tensor, told: Tensor) -> Tensor:
        return pool_map(x if self.dim == self.dim_out else self.proj(told), self.pooling)


class AdaptedHieraDetPatches(HieraPatchEmbed):
    """Its patch embedding."""

    @one_node
    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to a map ``(B, height, width, dim)``."""
        return map_of_images(self, x)


@adapts(HieraDet)
class AdaptedHieraDet(AdaptedPooling, HieraDet):
    """A small table stretched over the map, and one of a window repeated over it."""

    block, attention, padding = AdaptedHieraDetBlock, AdaptedHieraDetAttention, "tokens"
    position_keys = tuple(TABLES)

    @classmethod
    def own_encoding(cls, model: Any) -> list[dict[str, Any]]:
        window, background = model.pos_embed_window.shape[2:], model.pos_embed.shape[2:]
        return [{"name": "abswin", "form": "sam2", "window": tuple(window), "background": tuple(background)}]

    def cuts(self) -> list[tuple[Pair | None, Pair]]:
        return [
            (tuple(block.window_size) if block.is_windowed else None, tuple(block.q_stride or (1, 1)))
            for block in self.blocks
        ]

    def trained_map(self) -> Pair:
        height, width = (self.pretrained_cfg or {}).get("input_size", (0, *TRAINED_SIZE))[1:]
        down, right = self.patch_embed.proj.stride
        return -(-height // down), -(-width // right)

    def trained_pixels(self) -> Pair:
        (height, width), (down, right) = self.trained_map(), self.patch_embed.proj.stride
        return height * down, width * right

    def take_images(self) -> None:
        if type(self.patch_embed) is HieraPatchEmbed:
            self.patch_embed.__class__ = AdaptedHieraDetPatches
        else:
            any_size(self.patch_embed, Patches)
        self.pos_embed = self.pos_embed_window = None

    def from_published(self, state: State) -> State:
        for trunk in TRUNK:
            if f"{trunk}pos_embed" in state:
                state = {key.removeprefix(trunk): value for key, value in state.items() if key.startswith(trunk)}
        if "blocks.0.mlp.layers.0.weight" not in state:
            return state
        state = {
            key.replace(".mlp.layers.0.", ".mlp.fc1.").replace(".mlp.layers.1.", ".mlp.fc2."): value
            for key, value in state.items()
        }
        # The authors' encoder ends with its features; the head is timm's own.
        return {key: value for key, value in self.state_dict().items() if key.startswith("head.")} | state

    def positions(self, state: State) -> dict[str, Tensor]:
        return {
            f"pos_encoding.0.map.abswin.{own}": state[name][0].permute(1, 2, 0)
            for name, own in TABLES.items()
            if name in state
        }

    def forward_features(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to the last map, ``(B, height, width, dim)``."""
        return self._run(self._embed(x))[0]
