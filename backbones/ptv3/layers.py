"""The parts of Point Transformer V3: stem, blocks along curves, and the ways between the levels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from visionpe.backbones.ptv3.patches import CurvePatches
from visionpe.backbones.shared.images import check_dtype
from visionpe.backbones.shared.stage_encoding import StageEncoding
from visionpe.backbones.shared.voxel_backbone import VoxelStage
from visionpe.backbones.shared.voxel_blocks import SparseBlock, VoxelBatchNorm
from visionpe.backbones.shared.voxel_level import Level, groups, largest_of_groups
from visionpe.sparse import Order, SparseConv

Form = Literal["conv", "linear"]
# Side of the kernel of the stem, voxels.
STEM = 5


def norm_of(form: Form) -> Any:
    """The norm between levels: over the batch beside a convolution, over channels beside a linear layer."""
    return partial(VoxelBatchNorm, eps=1e-3, momentum=0.01) if form == "conv" else partial(nn.LayerNorm, eps=1e-5)


class Stem(nn.Module):
    """A sparse convolution over 125 cells, or a linear layer; a norm, GELU.

    Args:
        dim, dim_out: Channels.
        form: ``conv`` or ``linear``.
    """

    def __init__(self, dim: int, dim_out: int, form: Form, **factory: Any) -> None:
        super().__init__()
        layer: Any = partial(SparseConv, width=STEM) if form == "conv" else nn.Linear
        self.proj = layer(dim, dim_out, **factory)
        self.norm, self.act = norm_of(form)(dim_out, **factory), nn.GELU()

    def forward(self, x: Tensor, level: Level) -> Tensor:
        """``(N, dim)`` to ``(N, dim_out)``."""
        if isinstance(self.proj, nn.Linear):
            check_dtype("features", x, self.proj.weight)
            return self.act(self.norm(self.proj(x)))
        check_dtype("features", x, self.proj.kernel)
        return self.act(self.norm(self.proj(x, level.cells_within(STEM))))


class Down(nn.Module):
    """To coarser cells: the largest of the projected features of each cell's voxels, a norm, GELU.

    Args:
        dim, dim_out: Channels.
        stride: Cells of this level in one of the next, along each axis.
        form: Of the norm, see :func:`norm_of`.
    """

    def __init__(self, dim: int, dim_out: int, stride: int, form: Form, **factory: Any) -> None:
        super().__init__()
        self.stride = stride
        self.proj = nn.Linear(dim, dim_out, **factory)
        self.norm, self.act = norm_of(form)(dim_out, **factory), nn.GELU()

    def forward(self, x: Tensor, level: Level, coarse: Level) -> Tensor:
        """``(N, dim)`` to ``(M, dim_out)``."""
        group = level.keep("parents", lambda: groups(level, coarse))
        return self.act(self.norm(largest_of_groups(self.proj(x), group, len(coarse.voxels))))


class Up(nn.Module):
    """From a level to the finer one: features of the cells, to be added to those of the encoder's voxels.

    Args:
        dim, dim_skip, dim_out: Channels of the coarse level, of the encoder's fine one, and of what comes out.
        form: Of the norms, see :func:`norm_of`.
    """

    def __init__(self, dim: int, dim_skip: int, dim_out: int, form: Form, **factory: Any) -> None:
        super().__init__()
        norm = norm_of(form)
        self.proj = nn.Sequential(nn.Linear(dim, dim_out, **factory), norm(dim_out, **factory), nn.GELU())
        self.proj_skip = nn.Sequential(nn.Linear(dim_skip, dim_out, **factory), norm(dim_out, **factory), nn.GELU())

    def forward(self, x: Tensor, coarse: Level, skip: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """Coarse ``(M, dim)`` and the encoder's fine ``(N, dim_skip)`` to two of ``(N, dim_out)``, coarse first."""
        group = level.keep("parents", lambda: groups(level, coarse))
        return self.proj(x)[group], self.proj_skip(skip)


class CurveStage(VoxelStage):
    """Blocks of one level, which take turns with the curves.

    Args:
        blocks: The blocks.
        encoding: What their voxels are told of positions.
        patch_size: Voxels of a patch.
        equal: See :class:`~visionpe.backbones.ptv3.patches.CurvePatches`.
        change: The way from the level before, or None.
    """

    def __init__(
        self,
        blocks: Sequence[SparseBlock],
        encoding: StageEncoding,
        patch_size: int,
        *,
        equal: bool,
        change: nn.Module | None = None,
    ) -> None:
        super().__init__(encoding)
        self.blocks, self.patch_size, self.equal = nn.ModuleList(blocks), patch_size, equal
        self.change: Any = change

    def forward(
        self, x: Tensor, level: Level, orders: Sequence[Order], bits: int, *, beside: Tensor | None = None
    ) -> Tensor:
        """Run the blocks.

        Args:
            x: ``(N, dim)``.
            level: Where they stand.
            orders: Curves of this level.
            bits: Of a coordinate in its cells.
            beside: Added behind what joins the voxels ahead of the first block, ``(N, dim)``.

        Returns:
            ``(N, dim)``.
        """
        dtype, x = x.dtype, self.told(x, level)
        x = x if beside is None else x + beside
        for i, block in enumerate(self.blocks):
            x = self.run(block, x, level, self._patches(level, orders[i % len(orders)], bits))
        return x.to(dtype)

    def _patches(self, level: Level, order: Order, bits: int) -> CurvePatches:
        size, equal = self.patch_size, self.equal
        key = ("patches", order, size, equal)
        return level.keep(key, lambda: CurvePatches(level, order, bits, size, equal=equal))
