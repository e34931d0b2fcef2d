"""timm's ``Eva``: EVA, EVA-02, DINOv3, Perception Encoder, RoPE-ViT, and ViTs with rotary positions and registers."""

from __future__ import annotations

from typing import Any

from timm.layers.pos_embed_sincos import RotaryEmbeddingMixed
from timm.models.eva import Eva
from torch import Tensor

from visionpe.backbones.adapt.adapted import State, adapts
from visionpe.backbones.adapt.plain import AdaptedPlain
from visionpe.backbones.adapt.rotary import rotary_spec

FREQS = "pos_encoding.rope_mixed.freqs"


@adapts(Eva)
class AdaptedEva(AdaptedPlain, Eva):
    """A learned table, rotary positions, or both; at other sizes as timm does with ``dynamic_img_size``."""

    keyword = "rope"
    position_keys = ("pos_embed", "rope.*")
    # Of learned frequencies: whether those of rows come first in timm's file.
    rows_first: bool = False

    @classmethod
    def own_encoding(cls, model: Any) -> list[dict[str, Any]]:
        table = [] if model.pos_embed is None else [{"name": "ape"}]
        if model.rope is None:
            return table
        half = model.blocks[0].attn.rotate_half
        rotary = rotary_spec(model.rope, rotate_half=half, grid_size=model.patch_embed.grid_size)
        return [*table, rotary.spec | {"policy": rotary.policy}]

    def take_over(self, spec: list[Any]) -> None:
        if isinstance(self.rope, RotaryEmbeddingMixed):
            self.rows_first = self.rope.grid_indexing == "ij"
        super().take_over(spec)

    def positions(self, state: State) -> dict[str, Tensor]:
        out = super().positions(state)
        if (freqs := state.get("rope.freqs")) is not None:  # (axes, depth, heads, pairs), or heads and pairs in one
            heads = self.blocks[0].attn.num_heads
            freqs = freqs.reshape(*freqs.shape[:2], heads, -1)
            out[FREQS] = freqs.flip(0) if self.rows_first else freqs
        return out
