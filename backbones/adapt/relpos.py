"""timm's ``VisionTransformerRelPos``: ViTs with a table of offsets, or a small network, for each block or for all."""

from __future__ import annotations

from typing import Any

from timm.layers import RelPosBias
from timm.models.vision_transformer_relpos import RelPosAttention, VisionTransformerRelPos
from torch import Tensor

from visionpe.backbones.adapt.adapted import State, adapts
from visionpe.backbones.adapt.attentions import from_heads, to_heads, told
from visionpe.backbones.adapt.offset_tables import stacked_tables
from visionpe.backbones.adapt.plain import AdaptedPlain
from visionpe.backbones.adapt.told import Told

TABLE = "relative_position_bias_table"


@told(RelPosAttention)
class ToldRelPosAttention(RelPosAttention):
    """Attention of these ViTs."""

    def forward(self, x: Tensor, shared_rel_pos: Told) -> Tensor:
        """Tokens ``(B, N, dim)`` to tokens."""
        qkv = self.qkv(shared_rel_pos.inject(x)).chunk(3, dim=-1)
        q, k, v = (to_heads(t, self.num_heads) for t in qkv)
        attended = shared_rel_pos.attend(self, self.q_norm(q), self.k_norm(k), v)
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
        raise ValueError(f"model: positions by {type(relative).__name__} are not known; allowed: RelPosBias")

    def prefix_tokens(self) -> list[Tensor]:
        return [] if self.cls_token is None else [self.cls_token]

    def take_over(self, spec: list[Any]) -> None:
        super().take_over(spec)
        self.shared_rel_pos = None
        for block in self.blocks:
            block.attn.rel_pos = None

    def positions(self, state: State) -> dict[str, Tensor]:
        names = [f"shared_rel_pos.{TABLE}", *(f"blocks.{i}.attn.rel_pos.{TABLE}" for i in range(len(self.blocks)))]
        tables = [state[name] for name in names if name in state]
        slots = 3 * self.num_prefix_tokens
        return stacked_tables(tables, self.patch_embed.grid_size, slots, "pos_encoding.rpb") if tables else {}
