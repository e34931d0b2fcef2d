"""timm's ``VisionTransformerRelPos``: ViTs with a table of offsets, or a small network, for each block or for all."""

from __future__ import annotations

import re
from typing import Any

from timm.layers import RelPosBias
from timm.models.vision_transformer_relpos import RelPosAttention, VisionTransformerRelPos
from torch import Tensor

from visionpe.backbones.adapt.adapted import State, adapts
from visionpe.backbones.adapt.attentions import from_heads, to_heads, told
from visionpe.backbones.adapt.offset_tables import in_order, stacked_tables
from visionpe.backbones.adapt.plain import AdaptedPlain
from visionpe.backbones.adapt.told import Told

TABLE = "relative_position_bias_table"
# Layers of the network, by their place among ours.
LAYERS = {"1": "0", "2": "2"}


@told(RelPosAttention)
class ToldRelPosAttention(RelPosAttention):
    """Attention of these ViTs."""

    def forward(self, x: Tensor, shared_rel_pos: Told) -> Tensor:
        """Tokens ``(B, N, dim)`` to tokens."""
        x = shared_rel_pos.inject(x)
        qkv = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (to_heads(t, self.num_heads) for t in qkv)
        attended = shared_rel_pos.attend(self, self.q_norm(q), self.k_norm(k), v, tokens=x)
        return self.proj_drop(self.proj(from_heads(attended)))


@adapts(VisionTransformerRelPos)
class AdaptedVisionTransformerRelPos(AdaptedPlain, VisionTransformerRelPos):
    """No table of absolute positions; tables of offsets are resized by a geometric progression, as timm does."""

    keyword = "shared_rel_pos"
    position_keys = ("shared_rel_pos.*", "blocks.*.attn.rel_pos.*")

    @classmethod
    def own_encoding(cls, model: Any) -> list[dict[str, Any]]:
        shared = model.shared_rel_pos is not None
        relative = model.shared_rel_pos if shared else model.blocks[0].attn.rel_pos
        if relative is None:
            return []
        if isinstance(relative, RelPosBias):
            slots = relative.prefix_tokens
            return [{"name": "rpb", "shared": shared, "prefix_slots": slots, "policy": "geometric_linear"}]
        form = "bounded" if relative.mode == "swin" else "raw"
        network = {"hidden": relative.mlp.fc1.out_features, "dropout": relative.mlp.drop1.p}
        # timm normalises by the map at hand.
        policy = {"policy": "interpolate"} if form == "bounded" else {}
        return [{"name": "cpb", "form": form, "shared": shared, **network, **policy}]

    def prefix_tokens(self) -> list[Tensor]:
        return [] if self.cls_token is None else [self.cls_token]

    def take_over(self, spec: list[Any]) -> None:
        super().take_over(spec)
        self.shared_rel_pos = None
        for block in self.blocks:
            block.attn.rel_pos = None

    def positions(self, state: State) -> dict[str, Tensor]:
        tables = in_order(state, f"shared_rel_pos.{TABLE}") + in_order(state, f"blocks.{{}}.attn.rel_pos.{TABLE}")
        if tables:
            return stacked_tables(tables, self.patch_embed.grid_size, 3 * self.num_prefix_tokens, "pos_encoding.rpb")
        pattern = re.compile(r"(?:shared_rel_pos|blocks\.(\d+)\.attn\.rel_pos)\.mlp\.fc([12])\.(weight|bias)")
        return {
            f"pos_encoding.cpb.mlp.{match[1] or 0}.{LAYERS[match[2]]}.{match[3]}": value
            for key, value in state.items()
            if (match := pattern.fullmatch(key))
        }
