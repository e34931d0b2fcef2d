"""timm's ``Eva``: EVA, EVA-02, DINOv3, Perception Encoder, RoPE-ViT, and ViTs with rotary positions and registers."""

from __future__ import annotations

from typing import Any

from timm.models.eva import Eva
from torch import Tensor

from visionpe.backbones.adapt.adapted import State, adapts
from visionpe.backbones.adapt.plain import AdaptedPlain
from visionpe.backbones.adapt.rotary import rotary_spec

FREQS = "pos_encoding.rope_mixed.freqs"


@adapts(Eva)
class AdaptedEva(AdaptedPlain, Eva):
    """A learned table, rotary positions, or both."""

    keyword = "rope"
    position_keys = ("pos_embed", "rope.*")

    @classmethod
    def own_encoding(cls, model: Any) -> list[dict[str, Any]]:
        table = [] if model.pos_embed is None else [{"name": "ape"}]
        if model.rope is None:
            return table
        attention = model.blocks[0].attn
        return [
            *table,
            rotary_spec(model.rope, rotate_half=attention.rotate_half, grid_size=model.patch_embed.grid_size),
        ]

    def positions(self, state: State) -> dict[str, Tensor]:
        out = super().positions(state)
        if (freqs := state.get("rope.freqs")) is not None:  # (axes, depth, heads, pairs), heads and pairs in one
            heads = self.blocks[0].attn.num_heads
            out[FREQS] = freqs.reshape(*freqs.shape[:2], heads, -1)
        return out
