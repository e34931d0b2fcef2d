"""timm's ``VisionTransformerSAM``: the image encoder of Segment Anything, with windows and a few global blocks."""

from __future__ import annotations

from typing import Any

import torch
from timm.models.vision_transformer_sam import Attention, Block, VisionTransformerSAM
from torch import Tensor

from visionpe.backbones.adapt.adapted import Adapted, State, adapts
from visionpe.backbones.adapt.patches import any_size
from visionpe.backbones.adapt.wrapped import weight_of
from visionpe.backbones.shared.stage_encoding import StageEncoding, WindowKind
from visionpe.backbones.shared.windowed import MapBlock, WindowHeads
from visionpe.backbones.vit.features import GivesFeatures
from visionpe.backbones.vitdet.maps import WindowedMaps, places_of
from visionpe.cache import TableCache
from visionpe.grid import Grid
from visionpe.tracing import map_size

TABLES = {"rel_pos_h": "height_table", "rel_pos_w": "width_table"}


class AdaptedSAMAttention(WindowHeads, Attention):
    """Its attention; windows beyond the map hold the biases of the projection, with which it was trained."""

    padding = "tokens"

    def compared(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return self.q_norm(q), self.k_norm(k)


class AdaptedSAMBlock(MapBlock, Block):
    """Its block."""

    def attention_branch(self, attended: Tensor) -> Tensor:
        return self.drop_path1(self.ls1(attended))

    def mlp_branch(self, x: Tensor) -> Tensor:
        return self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


@adapts(VisionTransformerSAM)
class AdaptedSAM(WindowedMaps, GivesFeatures, Adapted, VisionTransformerSAM):
    """A table of absolute positions, and decomposed tables of offsets in attention."""

    position_keys = ("pos_embed", "blocks.*.attn.rel_pos_?")
    default_out_indices = 3
    num_prefix_tokens = 0
    padding = "tokens"

    @classmethod
    def own_encoding(cls, model: Any) -> list[dict[str, Any]]:
        if model.rope_global is not None:
            raise ValueError(
                "model: rotary positions of VisionTransformerSAM (use_rope=True) are not known; allowed: use_rel_pos, "
                "or pos_encoding='rope_axial' and the like"
            )
        table = [] if model.pos_embed is None else [{"name": "ape"}]
        return [*table, {"name": "decomposed"}] if model.blocks[0].attn.use_rel_pos else table

    def take_over(self, spec: list[Any]) -> None:
        any_size(self.patch_embed)
        attention, depth = self.blocks[0].attn, len(self.blocks)
        whole = [i for i, block in enumerate(self.blocks) if not block.window_size]
        sides = {block.window_size for block in self.blocks if block.window_size}
        side = max(sides, default=0)
        if len(sides) > 1:
            raise ValueError(f"model: windows of {sorted(sides)} tokens in one model; allowed: of one size")
        self.window_size, self.places = (side, side), places_of(whole, depth)
        self.cut_keys: set[str] = set()
        self.cache = TableCache()
        for index, block in enumerate(self.blocks):
            block.__class__, block.layer, block.attn.__class__ = AdaptedSAMBlock, index, AdaptedSAMAttention
            for name in TABLES if block.attn.use_rel_pos else ():
                delattr(block.attn, name)
            block.attn.rope = None
        self.pos_embed = self.rope_global = self.rope_window = None
        weight = weight_of(attention.qkv)
        context = {"dim": attention.num_heads * attention.head_dim, "num_heads": attention.num_heads}
        kinds = {
            "whole": WindowKind(**context, depth=len(whole), grid_size=self.patch_embed.grid_size),
            "window": WindowKind(**context, depth=depth - len(whole), grid_size=self.window_size),
        }
        self.pos_encoding = StageEncoding(
            spec,
            dim=self.embed_dim,
            num_heads=attention.num_heads,
            depth=depth,
            grid_size=self.patch_embed.grid_size,
            kinds={kind: its for kind, its in kinds.items() if its.depth},
            attention_window=self.window_size if side else None,
            **({"window": self.window_size} if side else {}),
            device=weight.device,
            dtype=weight.dtype,
        )

    def positions(self, state: State) -> dict[str, Tensor]:
        out = {}
        if "pos_embed" in state:
            out["pos_encoding.map.ape.table"] = state["pos_embed"][0]
        for kind in ("whole", "window"):
            blocks = [i for i, (its, _) in sorted(self.places.items()) if its == kind]
            for name, own in TABLES.items():
                keys = [f"blocks.{i}.attn.{name}" for i in blocks]
                if keys and all(key in state for key in keys):
                    tables = torch.stack([state[key] for key in keys])
                    out[f"pos_encoding.inside.{kind}.decomposed.{own}"] = tables
        return out

    def _embed(self, x: Tensor) -> tuple[Tensor, Any]:
        """Images ``(B, C, H, W)`` to the map of tokens ``(B, height, width, dim)`` and how blocks cut it."""
        x = self.patch_embed(x)
        size = map_size(x)
        x = self.pos_encoding.map.add(x.flatten(1, 2), Grid(size=size)).unflatten(1, size)
        return self.norm_pre(self.patch_drop(self.pos_drop(x))), self._partitions(size, x.device)

    def _final(self, x: Tensor) -> Tensor:
        """The last map ``(B, height, width, dim)`` to what the head gets, ``(B, num_features, height, width)``."""
        return self.neck(x.permute(0, 3, 1, 2))

    def forward_features(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to the map behind the neck, ``(B, num_features, height, width)``."""
        x, partitions = self._embed(x)
        for index in range(len(self.blocks)):
            x = self._block(index, x, partitions, None)
        return self._final(x)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers by depth, for layer-wise learning-rate decay; positions belong to the stem."""
        groups = dict(super().group_matcher(coarse))
        return groups | {"stem": rf"{groups['stem']}|^pos_encoding"}
