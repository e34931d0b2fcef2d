"""What every model shares when it is adapted whose blocks stand in one row and pool queries from stage to stage."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from visionpe.backbones.adapt.adapted import Adapted
from visionpe.backbones.adapt.wrapped import weight_of
from visionpe.backbones.shared.block import run_block
from visionpe.backbones.shared.images import check_images, take_indices
from visionpe.backbones.shared.partition import Padding, Partition
from visionpe.backbones.shared.pooling import PooledHeads
from visionpe.backbones.shared.stage_encoding import StageEncoding, WindowKind, check_widths
from visionpe.backbones.shared.windowed import ScaledMapBlock
from visionpe.backbones.shared.windows import Pair, WholeMap, Windows
from visionpe.cache import TableCache
from visionpe.graphs import one_node
from visionpe.grid import Grid
from visionpe.tracing import map_size


class PooledAttention(PooledHeads):
    """Mixin of their attentions, which have no dropout."""

    attn_drop: ClassVar[nn.Module] = nn.Dropout(0.0)
    proj_drop: ClassVar[nn.Module] = nn.Identity()


class PooledBlock(ScaledMapBlock):
    """Mixin of their blocks.

    Attributes:
        stage: Index of the stage.
        layer: Index in the stage.
        kind: Name of the kind of window, see :class:`~visionpe.backbones.shared.stage_encoding.StageEncoding`.
        turn: Index among the blocks of the stage that have it.
        window: Height and width of the windows of keys, tokens; None for the whole map.
        pooling: By how many tokens queries are pooled along each axis.
    """

    stage: int
    kind: str
    turn: int
    window: Pair | None
    pooling: Pair

    @one_node
    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """See :class:`~visionpe.backbones.shared.windowed.MapBlock`."""
        return super().forward(*args, **kwargs)


def map_of_images(embed: Any, x: Tensor) -> Tensor:
    """Images ``(B, C, H, W)`` of any size to a map ``(B, height, width, dim)``, by the convolution of an embedding."""
    check_images(x, embed.proj.in_channels, embed.proj)
    return embed.proj(x).permute(0, 2, 3, 1)


def check_blocks(encoding: StageEncoding, blocks: Sequence[Any], dim: int) -> None:
    """Refuse what acts in every block of a stage, where their width changes.

    Args:
        encoding: Of the stage.
        blocks: Its blocks, of width ``dim`` before and ``dim_out`` behind.
        dim: The width that the encoding is built for.

    Raises:
        ValueError: See :func:`~visionpe.backbones.shared.stage_encoding.check_widths`.
    """
    before, behind = {block.dim for block in blocks}, {block.dim_out for block in blocks}
    check_widths(encoding, inputs=before == {dim}, outputs=behind == {dim})


class AdaptedPooling(Adapted):
    """Mixin of models.

    A map that a stride does not divide is pooled with what is left in the last cells, so that features are as large as
    the image over their reduction, rounded up.

    Attributes:
        block, attention: What blocks and their attention become.
        padding: What windows hold beyond the map, see :class:`~visionpe.backbones.shared.block.WindowAttention`.
    """

    block: ClassVar[type]
    attention: ClassVar[type]
    padding: ClassVar[Padding]
    default_out_indices = (0, 1, 2, 3)

    # Of the model.
    blocks: Any
    patch_embed: Any
    stage_ends: list[int]
    pos_encoding: Any  # one for each stage
    grad_checkpointing: bool

    def cuts(self) -> list[tuple[Pair | None, Pair]]:
        """Of every block, the window of its keys in tokens, None for the whole map, and the stride of its queries."""
        raise NotImplementedError

    def trained_map(self) -> Pair:
        """Height and width of the map that blocks get at the trained size, tokens."""
        raise NotImplementedError

    def take_images(self) -> None:
        """Let the patch embedding give maps ``(B, height, width, dim)`` of images of any size."""
        raise NotImplementedError

    def take_over(self, spec: list[Any]) -> None:
        size, cuts = self.trained_map(), self.cuts()
        self.take_images()
        self.cache = TableCache()
        self.pos_encoding = nn.ModuleList()
        starts = [0, *(end + 1 for end in self.stage_ends)]
        there = range(len(self.blocks))  # fewer than the stages say where timm cut it down to its features
        for stage in range(bisect_left(starts, len(there))):
            its = there[starts[stage] : starts[stage + 1]]
            kinds: dict[str, WindowKind] = {}
            for index in its:
                block, (window, pooling) = self.blocks[index], cuts[index]
                self._change(block, window, pooling, stage=stage, layer=index - its.start)
                finer = size if window is None else window
                size = (-(-size[0] // pooling[0]), -(-size[1] // pooling[1]))
                block.turn = kinds[block.kind].depth if block.kind in kinds else 0
                kinds[block.kind] = WindowKind(
                    dim=block.dim_out,
                    num_heads=block.attn.num_heads,
                    depth=block.turn + 1,
                    grid_size=finer,
                    pools=pooling != (1, 1),
                )
            self.pos_encoding.append(self._encoding(spec, stage, its, size, kinds))

    def _encoding(
        self, spec: list[Any], stage: int, its: range, size: Pair, kinds: dict[str, WindowKind]
    ) -> StageEncoding:
        last = self.blocks[its[-1]]
        weight = weight_of(last.attn.proj)
        windows = [self.blocks[i].window for i in its if self.blocks[i].window is not None]
        encoding = StageEncoding(
            spec,
            dim=last.dim_out,
            num_heads=last.attn.num_heads,
            depth=len(its),
            grid_size=size,
            kinds=kinds,
            first=stage == 0,
            **({"attention_window": windows[-1], "window": windows[-1]} if windows else {}),
            device=weight.device,
            dtype=weight.dtype,
        )
        check_blocks(encoding, [self.blocks[i] for i in its], last.dim_out)
        return encoding

    def _change(self, block: Any, window: Pair | None, pooling: Pair, *, stage: int, layer: int) -> None:
        """Make a block ours.

        Raises:
            ValueError: If the stride does not divide the window.
        """
        if window is not None and any(w % s for w, s in zip(window, pooling)):
            raise ValueError(f"model: queries are pooled by {pooling} in windows of {window}; allowed: multiples of it")
        block.__class__, block.attn.__class__ = self.block, self.attention
        block.window, block.pooling, block.attn.pooling = window, pooling, pooling
        block.stage, block.layer = stage, layer
        # The first block of a stage has the windows of the stage before.
        block.kind = "entering" if stage and not layer else "whole" if window is None else "window"

    def _embed(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to the map ``(B, height, width, dim)`` that blocks get."""
        x = self.patch_embed(x)
        encoding = self.pos_encoding[0].map
        if not encoding.acts("add"):
            return x
        size = map_size(x)
        return encoding.add(x.flatten(1, 2), Grid(size=size)).unflatten(1, size)

    def _partitions(self, size: Pair, blocks: int, device: torch.device) -> list[list[Partition]]:
        """How each of the first blocks cuts its map; the first one's is of this size."""
        partitions: list[list[Partition]] = []
        ways: dict[tuple[int, str], tuple[Any, ...]] = {}
        for block in islice(self.blocks, blocks):  # a slice would be a module list of its own
            where = (block.stage, block.kind)
            if where not in ways:
                windows = WholeMap(size, size) if block.window is None else Windows(size, block.window)
                queries = None if block.pooling == (1, 1) else windows.pooled(block.pooling)
                grid = Grid(size=windows.window, queries=None if queries is None else queries.window)
                ways[where] = (windows, queries, grid, self._mask(windows, queries, device))
            windows, queries, grid, mask = ways[where]
            inside = self.pos_encoding[block.stage].inside[block.kind]
            partitions.append([Partition(windows, inside, grid, mask, block.turn, queries=queries)])
            size = size if queries is None else queries.size
        return partitions

    def _mask(self, windows: Windows, queries: Windows | None, device: torch.device) -> Tensor | None:
        if not windows.masks or self.padding == "tokens":
            return None
        if queries is None:
            return self.cache.get((windows, device), lambda: windows.additive(device))
        return self.cache.get((windows, queries, device), lambda: windows.pooled_additive(queries, device))

    def _run(self, x: Tensor, wanted: Sequence[int] = (), last: int | None = None) -> tuple[Tensor, list[Tensor]]:
        """Blocks on the embedded map.

        Args:
            x: ``(B, height, width, dim)``.
            wanted: Blocks whose maps are kept.
            last: The last block that runs; None for all.

        Returns:
            The last map, and those that are wanted.
        """
        count = len(self.blocks) if last is None else last + 1
        taken = []
        for index, (block, cut) in enumerate(zip(self.blocks, self._partitions(map_size(x), count, x.device))):
            encoding = self.pos_encoding[block.stage].map
            x = run_block(block, block.layer, x, encoding, cut, checkpointed=self.grad_checkpointing)
            if index in wanted:
                taken.append(x)
        return x, taken

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = True,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        coarse: bool = True,
    ) -> Any:
        """Features of stages, or with ``coarse=False`` of blocks, in timm's manner.

        Raises:
            ValueError: If ``norm`` is asked for, or ``output_fmt`` is neither.
        """
        if norm:
            raise ValueError("norm=True: the norm of this model follows pooling; allowed: False")
        if output_fmt not in ("NCHW", "NHWC"):
            raise ValueError(f"output_fmt={output_fmt!r} is unknown; allowed: NCHW, NHWC")
        wanted, last = take_indices(len(self.stage_ends) if coarse else len(self.blocks), indices)
        if coarse:
            wanted, last = [self.stage_ends[i] for i in wanted], self.stage_ends[last]
        x, taken = self._run(self._embed(x), wanted, last if stop_early else None)
        taken = [t.permute(0, 3, 1, 2) if output_fmt == "NCHW" else t for t in taken]
        return taken if intermediates_only else (self._as_features(x), taken)

    def _as_features(self, x: Tensor) -> Tensor:
        """The last map as ``forward_features`` gives it."""
        return x

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True, coarse: bool = True
    ) -> list[int]:
        """Drop the blocks after the last one asked for, their positions, and the classifier."""
        wanted, _ = take_indices(len(self.stage_ends) if coarse else len(self.blocks), indices)
        wanted = super().prune_intermediate_layers(wanted, prune_norm, prune_head, coarse)
        stage = bisect_left(self.stage_ends, len(self.blocks) - 1)
        self.pos_encoding = self.pos_encoding[: stage + 1]
        its = [block for block in self.blocks if block.stage == stage]
        encoding: Any = self.pos_encoding[stage]
        inside = {kind: sum(block.kind == kind for block in its) for kind in encoding.inside}
        encoding.keep_blocks(len(its), inside)
        return wanted

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers by depth, for layer-wise learning-rate decay; positions belong to the stem."""
        groups = dict(super().group_matcher(coarse))
        return groups | {"stem": rf"{groups['stem']}|^pos_encoding"}
