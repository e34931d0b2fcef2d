"""timm's ``Beit``: BEiT and BEiT v2, with a table of offsets for each block, or one for all."""

from __future__ import annotations

from typing import Any

from timm.models.beit import Attention as BeitAttention
from timm.models.beit import Beit
from torch import Tensor

from visionpe.backbones.adapt.adapted import State, adapts
from visionpe.backbones.adapt.attentions import from_heads, to_heads, told
from visionpe.backbones.adapt.offset_tables import in_order, stacked_tables
from visionpe.backbones.adapt.plain import AdaptedPlain
from visionpe.backbones.adapt.told import Told
from visionpe.backbones.adapt.wrapped import project_without_key_bias

SHARED = "rel_pos_bias.relative_position_bias_table"
OWN = "blocks.{}.attn.relative_position_bias_table"


@told(BeitAttention)
class ToldBeitAttention(BeitAttention):
    """BEiT's attention, whose keys have no bias."""

    def forward(self, x: Tensor, shared_rel_pos_bias: Told) -> Tensor:
        """Tokens ``(B, N, dim)`` to tokens."""
        x = shared_rel_pos_bias.inject(x)
        q, k, v = (to_heads(t, self.num_heads) for t in project_without_key_bias(self, x).chunk(3, dim=-1))
        return self.proj_drop(self.proj(from_heads(shared_rel_pos_bias.attend(self, q, k, v, tokens=x))))


@adapts(Beit)
class AdaptedBeit(AdaptedPlain, Beit):
    """Tables of offsets with entries for the class token, which timm resizes by a geometric progression."""

    keyword = "shared_rel_pos_bias"
    position_keys = ("pos_embed", "*relative_position_bias_table", "*relative_position_index")

    @classmethod
    def own_encoding(cls, model: Any) -> list[dict[str, Any]]:
        table = [] if model.pos_embed is None else [{"name": "ape"}]
        own = any(block.attn.relative_position_bias_table is not None for block in model.blocks)
        if own and model.rel_pos_bias is not None:
            raise ValueError("model has a table for all blocks and one for each; allowed: either")
        if not own and model.rel_pos_bias is None:
            return table
        return [*table, {"name": "rpb", "shared": not own, "prefix_slots": 1, "policy": "geometric_linear"}]

    def prefix_tokens(self) -> list[Tensor]:
        return [self.cls_token]

    def take_over(self, spec: list[Any]) -> None:
        self.rel_pos_bias = None
        for block in self.blocks:
            attention = block.attn
            attention.window_size = attention.relative_position_bias_table = attention.relative_position_index = None
            attention.head_dim = attention.qkv.out_features // 3 // attention.num_heads
        super().take_over(spec)

    def positions(self, state: State) -> dict[str, Tensor]:
        out, window = super().positions(state), self.patch_embed.grid_size
        tables = in_order(state, SHARED) + in_order(state, OWN)
        return out | stacked_tables(tables, window, 3, "pos_encoding.rpb") if tables else out
