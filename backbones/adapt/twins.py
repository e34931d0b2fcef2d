"""timm's ``Twins``: PCPVT and SVT, told positions by a convolution after the first block of every stage."""

from __future__ import annotations

import re
from typing import Any

import torch
from timm.models.twins import Block, LocallyGroupedAttn, PatchEmbed, Twins
from torch import Tensor, nn

from visionpe.backbones.adapt.adapted import State, adapts
from visionpe.backbones.adapt.staged import AdaptedStages
from visionpe.backbones.adapt.wrapped import weight_of
from visionpe.backbones.shared.block import run_block
from visionpe.backbones.shared.conv_embed import Slide
from visionpe.backbones.shared.images import check_images
from visionpe.backbones.shared.partition import Partition
from visionpe.backbones.shared.reduced import ReducedAttention
from visionpe.backbones.shared.stage_encoding import StageEncoding, WindowKind
from visionpe.backbones.shared.windowed import MapBlock, WindowHeads
from visionpe.backbones.shared.windows import Pair, WholeMap, Windows
from visionpe.grid import Grid
from visionpe.tracing import map_size


class AnyPatches(PatchEmbed):
    """Patches of maps of any size; as timm does, what is left below and right is cut off, but for the last patch."""

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, H / patch, W / patch, dim)``, rounded down, at least 1."""
        x = Slide(self.patch_size[0], self.patch_size[0]).padded(x)
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class LocalAttention(WindowHeads, LocallyGroupedAttn):
    """Attention in windows, which beyond the map hold the biases of the projection, as in training."""

    padding = "tokens"


class AdaptedTwinsBlock(MapBlock, Block):
    """Its block."""


@adapts(Twins)
class AdaptedTwins(AdaptedStages, Twins):
    """A convolution after the first block of every stage."""

    position_keys = ("pos_block.*",)
    sees_images = "patch_embeds.0"

    @classmethod
    def own_encoding(cls, model: Any) -> list[dict[str, Any]]:
        return [{"name": "cpe"}]

    def take_over(self, spec: list[Any]) -> None:
        self.pos_block, self.pos_encoding = nn.ModuleList(), nn.ModuleList()
        for index, (embed, blocks) in enumerate(zip(self.patch_embeds, self.blocks)):
            embed.__class__ = AnyPatches
            self.pos_encoding.append(self._encoding(spec, blocks, (embed.H, embed.W), first=index == 0))

    def _encoding(self, spec: list[Any], blocks: Any, size: Pair, *, first: bool) -> StageEncoding:
        """The encodings of a stage, whose blocks become ours."""
        kinds: dict[str, WindowKind] = {}
        for layer, block in enumerate(blocks):
            attention = block.attn
            local = isinstance(attention, LocallyGroupedAttn)
            block.__class__, attention.__class__ = AdaptedTwinsBlock, LocalAttention if local else ReducedAttention
            block.layer, block.kind = layer, "window" if local else "whole"
            block.turn = kinds[block.kind].depth if block.kind in kinds else 0
            kinds[block.kind] = WindowKind(
                dim=attention.dim,
                num_heads=attention.num_heads,
                depth=block.turn + 1,
                grid_size=(attention.ws, attention.ws) if local else size,
                pools=not local and attention.sr_ratio > 1,
            )
        weight = weight_of(attention.proj)
        return StageEncoding(
            spec,
            dim=attention.dim,
            num_heads=attention.num_heads,
            depth=len(blocks),
            grid_size=size,
            kinds=kinds,
            first=first,
            device=weight.device,
            dtype=weight.dtype,
        )

    def positions(self, state: State) -> dict[str, Tensor]:
        pattern = re.compile(r"pos_block\.(\d+)\.proj\.0\.(weight|bias)")
        return {
            f"pos_encoding.{match[1]}.map.cpe.convs.0.{match[2]}": value
            for key, value in state.items()
            if (match := pattern.fullmatch(key))
        }

    def _ways(self, index: int, size: Pair) -> dict[str, tuple[Windows, Grid]]:
        """How each kind of block of a stage cuts a map of this size, and where tokens stand there."""
        ways: dict[str, tuple[Windows, Grid]] = {}
        for block in self.blocks[index]:
            if block.kind in ways:
                continue
            if block.kind == "window":
                windows = Windows(size, (block.attn.ws, block.attn.ws))
                ways[block.kind] = (windows, Grid(size=windows.window))
            else:
                ways[block.kind] = (WholeMap(size, size), block.attn.grid(size))
        return ways

    def begin(self, x: Tensor) -> Tensor:
        check_images(x, self.in_chans, self.patch_embeds[0].proj)
        return x.permute(0, 2, 3, 1)

    def run_stage(self, index: int, x: Tensor) -> Tensor:
        x = self.pos_drops[index](self.patch_embeds[index](x.permute(0, 3, 1, 2)))
        encoding: Any = self.pos_encoding[index]
        size = map_size(x)
        if encoding.map.acts("add"):
            x = encoding.map.add(x.flatten(1, 2), Grid(size=size)).unflatten(1, size)
        ways = self._ways(index, size)
        for block in self.blocks[index]:
            windows, grid = ways[block.kind]
            cut = [Partition(windows, encoding.inside[block.kind], grid, None, block.turn)]
            x = run_block(block, block.layer, x, encoding.map, cut, checkpointed=self.grad_checkpointing)
        return x

    def normed(self, x: Tensor, index: int) -> Tensor:
        return self.norm(x) if index == len(self.depths) - 1 else x

    def as_features(self, x: Tensor, index: int) -> Tensor:
        """Normed tokens ``(B, N, dim)`` of the last stage; of a model that was cut down, its last map."""
        if index < len(self.depths) - 1:
            return x.permute(0, 3, 1, 2)
        return self.norm(x.flatten(1, 2))

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass, which timm's own model does not."""
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """As in timm, everything that tells positions."""
        return {name for name, _ in self.named_parameters() if name.startswith("pos_encoding.")}

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers by depth, for layer-wise learning-rate decay; positions of a stage belong to its beginning."""
        groups = super().group_matcher(coarse)
        return {**groups, "blocks": [(key.replace("pos_block", "pos_encoding"), at) for key, at in groups["blocks"]]}
