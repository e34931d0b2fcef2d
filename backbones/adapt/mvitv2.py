"""timm's ``MultiScaleVit``: MViTv2, whose attention pools queries, keys and values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from timm.models.mvitv2 import (
    MultiScaleAttention,
    MultiScaleBlock,
    MultiScaleVit,
    MultiScaleVitStage,
    PatchEmbed,
    reshape_post_pool,
    reshape_pre_pool,
)
from torch import Tensor, nn

from visionpe.backbones.adapt.adapted import Adapted, State, adapts
from visionpe.backbones.adapt.attentions import from_heads, to_heads
from visionpe.backbones.adapt.pooling import check_blocks
from visionpe.backbones.adapt.published_layouts import renamed
from visionpe.backbones.adapt.told import Told, run_told
from visionpe.backbones.adapt.wrapped import weight_of
from visionpe.backbones.shared.images import check_images
from visionpe.backbones.shared.position_tables import table_shape
from visionpe.backbones.shared.stage_encoding import StageEncoding, WindowKind
from visionpe.backbones.shared.windows import Pair
from visionpe.grid import Grid
from visionpe.tracing import number

TABLES = {"rel_pos_h": "height_table", "rel_pos_w": "width_table"}


def pooled_size(size: Pair, pool: Any) -> Pair:
    """Height and width of a map behind a convolution or a pooling, or None, that slides over it."""
    if pool is None:
        return size
    sides = (
        value if isinstance(value, tuple) else (value,) * 2 for value in (pool.kernel_size, pool.stride, pool.padding)
    )
    height, width = ((n + 2 * pad - kernel) // step + 1 for n, kernel, step, pad in zip(size, *sides))
    return height, width


class AdaptedMViTPatches(PatchEmbed):
    """Its patch embedding."""

    def forward(self, x: Tensor) -> tuple[Tensor, Pair]:
        """Images ``(B, C, H, W)`` to tokens ``(B, N, dim)``, and how many there are along each axis."""
        check_images(x, self.proj.in_channels, self.proj)
        return super().forward(x)


class AdaptedMViTAttention(MultiScaleAttention):
    """Its attention."""

    attn_drop: ClassVar[nn.Module] = nn.Dropout(0.0)
    fused_attn: ClassVar[bool] = True

    def grid(self, size: Pair) -> Grid:
        """Where queries and keys stand, of a map of this size."""
        queries, keys = pooled_size(size, self.pool_q), pooled_size(size, self.pool_k)
        same = self.pooling == ((1, 1), (1, 1))
        return Grid(keys, int(self.has_cls_token), queries=None if same else queries)

    @property
    def pooling(self) -> tuple[Pair, Pair]:
        """Strides of queries and keys."""
        strides = [(1, 1) if pool is None else pool.stride for pool in (self.pool_q, self.pool_k)]
        first, second = ((s, s) if isinstance(s, int) else tuple(s) for s in strides)
        return first, second

    def _pooled(self, x: Tensor, pool: Any, norm: Any, size: Pair) -> Tensor:
        """``(B, heads, N, head_dim)`` to fewer tokens."""
        if pool is not None:
            maps, prefix = reshape_pre_pool(x, size, self.has_cls_token)
            x, _ = reshape_post_pool(pool(maps), self.num_heads, prefix)
        return x if norm is None else norm(x)

    def forward(self, x: Tensor, size: Pair, told: Told) -> Tensor:
        """Tokens ``(B, N, dim)`` of a map of this size to those of the queries."""
        q, k, v = (to_heads(t, self.num_heads) for t in self.qkv(x).chunk(3, dim=-1))
        q = self._pooled(q, self.pool_q, self.norm_q, size)
        k = self._pooled(k, self.pool_k, self.norm_k, size)
        v = self._pooled(v, self.pool_v, self.norm_v, size)
        attended = told.attend(self, q, k, v)
        return self.proj(from_heads(attended + q if self.residual_pooling else attended))


class AdaptedMViTBlock(MultiScaleBlock):
    """Its block.

    Attributes:
        kind: ``entering`` where the block pools queries, else ``staying``.
        turn: Index among the blocks of the stage of that kind.
    """

    kind: str
    turn: int

    def forward(self, x: Tensor, told: Told, size: Pair) -> Tensor:
        """Tokens ``(B, N, dim)`` of a map of this size to those of the queries."""
        normed = self.norm1(x)
        kept = x if self.shortcut_proj_attn is None else self.shortcut_proj_attn(normed)
        x = self._shortcut_pool(kept, size) + self.drop_path1(self.attn(normed, size, told))
        normed = self.norm2(x)
        kept = x if self.shortcut_proj_mlp is None else self.shortcut_proj_mlp(normed)
        return kept + self.drop_path2(self.mlp(normed))


class AdaptedMViTStage(MultiScaleVitStage):
    """Its stage.

    Attributes:
        first: It is the first one, in which tables of absolute positions are added.
    """

    first: bool

    def take_over(self, spec: list[Any], size: Pair, *, first: bool) -> None:
        """Put encodings in the place of timm's positions.

        Args:
            spec: The encodings.
            size: Of the map ahead of it at the trained size, tokens.
            first: It is the first stage.
        """
        self.first = first
        kinds: dict[str, WindowKind] = {}
        for block in self.blocks:
            attention: Any = block.attn
            block.__class__, attention.__class__ = AdaptedMViTBlock, AdaptedMViTAttention
            grid = attention.grid(size)
            size, finer = grid.queries or grid.size, grid.finer.size
            if attention.rel_pos_type == "spatial":
                finer = tuple((len(getattr(attention, name)) + 1) // 2 for name in TABLES)
            for name in TABLES if attention.rel_pos_type == "spatial" else ():
                delattr(attention, name)
            strides = attention.pooling
            block.kind = "staying" if strides[0] == (1, 1) else "entering"
            block.turn = kinds[block.kind].depth if block.kind in kinds else 0
            kinds[block.kind] = WindowKind(
                dim=attention.dim_out,
                num_heads=attention.num_heads,
                depth=block.turn + 1,
                grid_size=finer,
                pools=strides != ((1, 1), (1, 1)),
            )
        weight = weight_of(attention.qkv)
        self.pos_encoding = StageEncoding(
            spec,
            dim=attention.dim_out,
            num_heads=attention.num_heads,
            depth=len(self.blocks),
            grid_size=size,
            kinds=kinds,
            first=first,
            device=weight.device,
            dtype=weight.dtype,
        )
        check_blocks(self.pos_encoding, list(self.blocks), attention.dim_out)

    def forward(self, x: Tensor, feat_size: Sequence[int]) -> tuple[Tensor, Pair]:
        """Tokens ``(B, N, dim)`` and how many there are along each axis, to the same."""
        size: Any = tuple(map(number, feat_size))
        encoding: Any = self.pos_encoding
        prefix = int(self.blocks[0].has_cls_token)
        if self.first and encoding.map.acts("add"):
            x = torch.cat((x[:, :prefix], encoding.map.add(x[:, prefix:], Grid(size))), dim=1)
        grids: dict[str, Grid] = {}
        for layer, block in enumerate(self.blocks):
            kind: Any = block.kind
            if kind not in grids:
                grids[kind] = block.attn.grid(size)
            grid = grids[kind]
            told = Told(encoding.inside[kind], grid, block.turn)
            x = run_told(block, x, told, keyword="told", checkpointed=self.grad_checkpointing, size=size)
            size = grid.queries or grid.size
            if encoding.map.acts("refine"):
                x = encoding.map.refine(x, Grid(size, prefix), layer=layer)
        return x, size


@adapts(MultiScaleVit)
class AdaptedMViT(Adapted, MultiScaleVit):
    """Decomposed tables of offsets, of the finer of the grids of queries and keys."""

    position_keys = ("pos_embed", "stages.*.blocks.*.attn.rel_pos_?")

    @classmethod
    def own_encoding(cls, model: Any) -> list[dict[str, Any]]:
        table = [] if model.pos_embed is None else [{"name": "ape"}]
        relative = model.stages[0].blocks[0].attn.rel_pos_type == "spatial"
        return [*table, {"name": "decomposed"}] if relative else table

    def take_over(self, spec: list[Any]) -> None:
        for block in (block for stage in self.stages for block in stage.blocks):
            if type(block.attn) is not MultiScaleAttention:
                raise ValueError(
                    f"model: attention {type(block.attn).__name__} is not known; allowed: pool_first=False"
                )
        self.patch_embed.__class__ = AdaptedMViTPatches
        self.grid_size = size = self._trained_map()
        for index, stage in enumerate(self.stages):
            stage.__class__ = AdaptedMViTStage
            stage.take_over(spec, size, first=index == 0)
            size = tuple(stage.feat_size)
        self.pos_embed = None

    def _trained_map(self) -> Pair:
        """Height and width of the map that the first stage gets at the trained size, tokens."""
        blocks: Any = self.stages[0].blocks
        height, width = (
            n * s for n, s in zip(self.stages[0].feat_size, getattr(blocks[0].attn.pool_q, "stride", (1, 1)))
        )
        return height, width

    def from_published(self, state: State) -> State:
        if "blocks.0.norm1.weight" not in state:
            return state
        beginnings = {"head.projection.": "head.fc."}
        # Blocks of the authors are numbered through all stages.
        every = ((s, b, block) for s, stage in enumerate(self.stages) for b, block in enumerate(stage.blocks))
        for count, (stage, turn, block) in enumerate(every):
            shortcut = "mlp" if block.shortcut_proj_attn is None else "attn"
            beginnings[f"blocks.{count}.proj."] = f"stages.{stage}.blocks.{turn}.shortcut_proj_{shortcut}."
            beginnings[f"blocks.{count}."] = f"stages.{stage}.blocks.{turn}."
        return {renamed(key, beginnings): value for key, value in state.items()}

    def positions(self, state: State) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        if "pos_embed" in state:
            table, slots = state["pos_embed"], self.num_prefix_tokens
            _, size = table_shape(
                table.shape[1], (slots,), ((self.grid_size,),), own=self.grid_size, keyword="img_size", sure=(slots,)
            )
            out["stages.0.pos_encoding.map.ape.table"] = table[0, slots:].unflatten(0, size)
            if slots:
                out["cls_token"] = state["cls_token"] + table[:, :slots]
        found: dict[str, list[Tensor]] = defaultdict(list)
        for index, stage in enumerate(self.stages):
            for turn, block in enumerate(stage.blocks):
                for name, own in TABLES.items():
                    key = f"stages.{index}.blocks.{turn}.attn.{name}"
                    if key in state:
                        found[f"stages.{index}.pos_encoding.inside.{block.kind}.decomposed.{own}"].append(state[key])
        return out | {key: torch.stack(tables) for key, tables in found.items()}
