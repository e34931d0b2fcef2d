"""timm's ``Hiera``: attention in mask units, then over the whole map."""

from __future__ import annotations

from typing import Any

import torch
from timm.models.hiera import Hiera, HieraBlock, MaskUnitAttention, PatchEmbed
from torch import Tensor

from visionpe.backbones.adapt.adapted import State, adapts
from visionpe.backbones.adapt.pooling import AdaptedPooling, PooledAttention, PooledBlock, map_of_images
from visionpe.backbones.adapt.published_layouts import renamed
from visionpe.backbones.shared.pooling import pool_map
from visionpe.backbones.shared.position_tables import table_shape
from visionpe.backbones.shared.windows import Pair
from visionpe.graphs import one_node

# Of the authors' head: timm's.
HEAD = {"head.projection.": "head.fc.", "norm.": "head.norm.", "encoder_norm.": "head.norm."}
WINDOW_TABLES = {"pos_embed": "table", "pos_embed_win": "window_table"}


class AdaptedHieraAttention(PooledAttention, MaskUnitAttention):
    """Its attention; nobody sees what mask units hold beyond the map, as none was trained so."""

    @property
    def num_heads(self) -> int:
        return self.heads


class AdaptedHieraBlock(PooledBlock, HieraBlock):
    """Its block."""

    def kept(self, x: Tensor, told: Tensor) -> Tensor:
        if self.proj is not None:
            return pool_map(self.proj(told), self.pooling)
        if not self.do_expand:
            return pool_map(x, self.pooling)
        return torch.cat([pool_map(x, self.pooling, "max"), pool_map(x, self.pooling, "mean")], dim=-1)


class AdaptedHieraPatches(PatchEmbed):
    """Its patch embedding."""

    @one_node
    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to a map ``(B, height, width, dim)``."""
        return map_of_images(self, x)


def _check(model: Any) -> None:
    if model.pos_embed is None or len(model.patch_stride) != 2:
        raise ValueError(
            "model: Hiera for video (sep_pos_embed=True, or patches on three axes) is not known; allowed: Hiera for "
            "images"
        )
    if model.patch_drop_rate:
        raise ValueError(
            f"model: patch_drop_rate={model.patch_drop_rate} leaves holes in the map; allowed: a model with 0"
        )


def _check_mask(mask: Any) -> None:
    if mask is not None:
        raise ValueError("mask: an adapted Hiera sees every mask unit; allowed: None, or the original for MAE")


@adapts(Hiera)
class AdaptedHiera(AdaptedPooling, Hiera):
    """A table of absolute positions, or a small one stretched over the map and one of a mask unit repeated over it."""

    block, attention, padding = AdaptedHieraBlock, AdaptedHieraAttention, "mask"
    position_keys = ("pos_embed", "pos_embed_win")
    pos_embed_abs = None  # timm asks for it where there is no table

    @classmethod
    def own_encoding(cls, model: Any) -> list[dict[str, Any]]:
        _check(model)
        if model.pos_embed_win is None:
            return [{"name": "ape"}]
        window, background = model.pos_embed_win.shape[2:], model.pos_embed.shape[2:]
        return [{"name": "abswin", "form": "timm", "window": tuple(window), "background": tuple(background)}]

    def take_over(self, spec: list[Any]) -> None:
        _check(self)
        super().take_over(spec)

    def cuts(self) -> list[tuple[Pair | None, Pair]]:
        cuts, (height, width), stride = [], self.mask_unit_size, tuple(self.q_stride)
        for block in self.blocks:
            pooling = stride if block.attn.q_stride > 1 else (1, 1)
            cuts.append(((height, width) if block.attn.use_mask_unit_attn else None, pooling))
            height, width = height // pooling[0], width // pooling[1]
        return cuts

    def trained_map(self) -> Pair:
        height, width = self.tokens_spatial_shape
        return height, width

    def take_images(self) -> None:
        self.patch_embed.__class__ = AdaptedHieraPatches
        self.pos_embed = self.pos_embed_win = None

    def from_published(self, state: State) -> State:
        return {renamed(key, HEAD): value for key, value in state.items()}

    def positions(self, state: State) -> dict[str, Tensor]:
        if "pos_embed" not in state:
            return {}
        if state["pos_embed"].ndim == 4:
            where = "pos_encoding.0.map.abswin"
            tables = {own: state.get(name) for name, own in WINDOW_TABLES.items()}
            return {f"{where}.{own}": t[0].permute(1, 2, 0) for own, t in tables.items() if t is not None}
        table, own = state["pos_embed"][0], self.trained_map()
        _, size = table_shape(len(table), (0,), ((own,),), own=own, keyword="img_size", sure=(0,))
        return {"pos_encoding.0.map.ape.table": table.unflatten(0, size)}

    def forward_features(
        self, x: Tensor, mask: Tensor | None = None, return_intermediates: bool = False
    ) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Images ``(B, C, H, W)`` to tokens ``(B, N, dim)`` in rows, and the maps of all stages if they are asked for.

        Raises:
            ValueError: If there is a mask of units.
        """
        _check_mask(mask)
        x, taken = self._run(self._embed(x), self.stage_ends)
        return (self._as_features(x), taken) if return_intermediates else self._as_features(x)

    def _as_features(self, x: Tensor) -> Tensor:
        return x.flatten(1, 2)

    def forward_intermediates(self, x: Tensor, mask: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """See :meth:`AdaptedPooling.forward_intermediates`; ``mask`` must be None."""
        _check_mask(mask)
        return super().forward_intermediates(x, *args, **kwargs)
