"""What every plain ViT shares when it is adapted: tokens in one sequence, told positions from the embedding on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from timm.layers import PatchDropout, PatchDropoutWithIndices
from torch import Tensor, nn

from visionpe.backbones.adapt.adapted import Adapted, State
from visionpe.backbones.adapt.attentions import tell_blocks
from visionpe.backbones.adapt.patches import any_size
from visionpe.backbones.adapt.told import Told, run_told
from visionpe.backbones.shared.images import read_mask
from visionpe.backbones.shared.mixed_sizes import TakesMixedSizes
from visionpe.backbones.vit.features import GivesFeatures
from visionpe.backbones.vit.views import full_grid
from visionpe.composition import Composition, refuse_carrying
from visionpe.graphs import no_node
from visionpe.grid import Grid
from visionpe.mixed import MixedGrid
from visionpe.registry import create_encodings

TABLE = "pos_encoding.ape.table"


class AdaptedPlain(TakesMixedSizes, GivesFeatures, Adapted):
    """Mixin of plain ViTs.

    Attributes:
        keyword: The argument by which blocks hand to attention what it is told.
    """

    keyword: ClassVar[str] = "attn_mask"
    position_keys = ("pos_embed",)
    default_out_indices = 3

    # Of the model.
    patch_embed: Any
    patch_drop: Any
    pos_drop: Any
    pos_embed: Any
    rope: Any
    cls_token: Any
    reg_token: Any
    norm_pre: Any
    embed_dim: int
    num_prefix_tokens: int
    grad_checkpointing: bool

    def prefix_tokens(self) -> list[Tensor]:
        """Tokens ahead of the patches, each ``(1, n, dim)``, in order."""
        return [t for t in (self.cls_token, self.reg_token) if t is not None]

    def take_over(self, spec: list[Any]) -> None:
        any_size(self.patch_embed)
        told = tell_blocks(self.blocks)
        for name, absent in (("patch_drop", None), ("pos_drop", nn.Identity()), ("norm_pre", nn.Identity())):
            if not hasattr(self, name):
                setattr(self, name, absent)
        if isinstance(self.patch_drop, PatchDropout):
            drop = self.patch_drop
            self.patch_drop = PatchDropoutWithIndices(drop.prob, drop.num_prefix_tokens, drop.ordered)
        self.cut_keys: set[str] = set()
        self.pos_encoding = self.encodings(spec, told[0])
        for name in ("pos_embed", "rope"):
            if hasattr(self, name):
                delattr(self, name)
                setattr(self, name, None)

    def encodings(self, spec: list[Any], attention: Any) -> Composition:
        """The encodings of all blocks, where attention has heads as in one of them.

        Raises:
            ValueError: If one cannot work here.
        """
        weight = next(self.patch_embed.parameters())
        context = {
            "num_heads": attention.num_heads,
            "depth": len(self.blocks),
            "grid_size": self.patch_embed.grid_size,
            **({} if self.prefix_tokens() else {"prefix_slots": 0}),
            "device": weight.device,
            "dtype": weight.dtype,
        }
        width = attention.num_heads * attention.head_dim
        parts = create_encodings(spec, dim=self.embed_dim, **context)
        refuse_carrying(parts)
        if width != self.embed_dim:  # heads have a width of their own
            inside = create_encodings(spec, dim=width, **context)
            on_tokens = [set(part.sites()) <= {"add", "refine"} for part in parts]
            parts = [part if own else other for part, other, own in zip(parts, inside, on_tokens)]
        for part in parts if isinstance(self.patch_drop, PatchDropoutWithIndices) else ():
            if not part.takes_coords:
                raise ValueError(
                    f"pos_encoding={part.name!r} needs the full map of tokens, patch_drop_rate={self.patch_drop.prob} "
                    "leaves holes in it; allowed: a model with patch_drop_rate=0"
                )
        return Composition(parts)

    def positions(self, state: State) -> dict[str, Tensor]:
        return self._from_table(state) if "pos_embed" in state else {}

    def _from_table(self, state: State) -> dict[str, Tensor]:
        """The table of a file, and the prefix tokens with what it adds to them."""
        table, out = state["pos_embed"], {}
        height, width = self.patch_embed.grid_size
        slots = table.shape[1] - height * width
        names = [name for name in ("cls_token", "dist_token", "reg_token") if state.get(name) is not None]
        counts = [state[name].shape[1] for name in names]
        if slots in (0, sum(counts)):
            size = (height, width)
        else:  # of another size, whose shape is a square unless somebody says otherwise
            size, slots = self._table_size(table.shape[1], sum(counts))
        out[TABLE] = table[0, slots:].unflatten(0, size)
        for name, slot in zip(names, table[:, :slots].split(counts, dim=1) if slots else ()):
            out[name] = state[name] + slot
        return out

    def _table_size(self, entries: int, prefix: int) -> tuple[tuple[int, int], int]:
        own = 0 if getattr(self, "no_embed_class", False) else prefix
        for slots in (own, prefix - own):
            side = round((entries - slots) ** 0.5)
            if side * side == entries - slots:
                return (side, side), slots
        raise RuntimeError(
            f"pos_embed has {entries} entries, for no square map and not for that of the model, "
            f"{tuple(self.patch_embed.grid_size)}; allowed: a model of the size of the file (img_size)"
        )

    @no_node
    def _embed(self, x: Tensor) -> tuple[Tensor, Grid]:
        """Images ``(B, C, H, W)`` to tokens ``(B, N, dim)`` and where they stand."""
        x = self.patch_embed(x)  # (B, height, width, dim)
        prefix = [t.expand(x.shape[0], -1, -1) for t in self.prefix_tokens()]
        grid = full_grid(x, sum(t.shape[1] for t in prefix))
        x = self.pos_encoding.add(x.flatten(1, 2), grid)
        x = self.pos_drop(torch.cat([*prefix, x], dim=1) if prefix else x)
        if isinstance(self.patch_drop, PatchDropoutWithIndices):
            x, kept = self.patch_drop(x)
            if kept is not None:
                grid = grid.kept(kept)
        return self.norm_pre(x), grid

    def _block(self, index: int, x: Tensor, grid: Grid | MixedGrid, attn_mask: Tensor | None) -> Tensor:
        told = Told(self.pos_encoding, grid, index, attn_mask)
        x = run_told(self.blocks[index], x, told, keyword=self.keyword, checkpointed=self.grad_checkpointing)
        return self.pos_encoding.refine(x, grid, layer=index)

    def _final(self, x: Tensor) -> Tensor:
        return self.norm(x)

    def forward(self, x: Any, attn_mask: Tensor | None = None, is_causal: bool = False, **mixed: Any) -> Any:
        """See :meth:`TakesMixedSizes.forward`; as in timm, ``is_causal`` takes the place of a mask."""
        if is_causal is not False:  # a question that torch.fx can follow to its refusal
            return self.forward_head(self.forward_features(x, attn_mask, is_causal))
        return super().forward(x, attn_mask, **mixed)

    def forward_features(self, x: Any, attn_mask: Tensor | None = None, is_causal: bool = False, **mixed: Any) -> Any:
        """Images ``(B, C, H, W)`` to normed tokens ``(B, N, dim)``, prefix tokens first; of several sizes a list."""
        x, grid = self._tokens(x, attn_mask, **mixed)
        if isinstance(grid, Grid):
            attn_mask = read_mask(attn_mask, x, is_causal)
        elif is_causal:
            raise ValueError("is_causal=True: images of several sizes have no order; allowed: False")
        for index in range(len(self.blocks)):
            x = self._block(index, x, grid, attn_mask)
        return self._ended(x, grid)

    def set_input_size(
        self, img_size: Sequence[int] | int | None = None, patch_size: Sequence[int] | int | None = None
    ) -> None:
        """Change the nominal size, pixels; tables per position are resized, policies keep the trained size."""
        resize = getattr(super(), "set_input_size", self.patch_embed.set_input_size)  # CaiT has none of its own
        resize(img_size=img_size, patch_size=patch_size)
        for part in self.pos_encoding.parts:
            part.set_input_grid(self.patch_embed.grid_size)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers by depth, for layer-wise learning-rate decay; positions belong to the stem."""
        groups = dict(super().group_matcher(coarse))
        return groups | {"stem": rf"{groups['stem']}|^pos_encoding"}
