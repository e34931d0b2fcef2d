"""The parts of Swin3D: stem, attention in sparse windows, and the ways between the levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from visionpe.backbones.shared.images import check_dtype
from visionpe.backbones.shared.stage_encoding import StageEncoding
from visionpe.backbones.shared.voxel_backbone import VoxelStage
from visionpe.backbones.shared.voxel_blocks import SparseBlock, VoxelBatchNorm
from visionpe.backbones.shared.voxel_level import Level, groups, largest_of_groups
from visionpe.sparse import Neighbourhood, SparseConv


class _Inner(nn.Module):
    """Holds a layer one name deeper, as published files do."""

    def __init__(self, name: str, layer: nn.Module) -> None:
        super().__init__()
        setattr(self, name, layer)
        self.layer = name

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, self.layer)(x)


def _norm(dim: int, **factory: Any) -> _Inner:
    return _Inner("bn", VoxelBatchNorm(dim, **factory))


class ConvStem(nn.Module):
    """A sparse convolution over 27 cells, batch norm, ReLU.

    Args:
        dim, dim_out: Channels.
    """

    def __init__(self, dim: int, dim_out: int, **factory: Any) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList([SparseConv(dim, dim_out, **factory), _norm(dim_out, **factory), nn.ReLU()])

    def forward(self, x: Tensor, around: Neighbourhood) -> Tensor:
        """``(N, dim)`` to ``(N, dim_out)``."""
        conv, norm, act = self.conv_layers
        check_dtype("features", x, conv.kernel)
        return act(norm(conv(x, around)))


class ResidualConvs(nn.Module):
    """Two sparse convolutions beside the identity, for a stem without attention."""

    def __init__(self, dim: int, **factory: Any) -> None:
        super().__init__()
        self.conv1, self.norm1 = SparseConv(dim, dim, **factory), _norm(dim, **factory)
        self.conv2, self.norm2 = SparseConv(dim, dim, **factory), _norm(dim, **factory)

    def forward(self, x: Tensor, around: Neighbourhood) -> Tensor:
        """``(N, dim)`` to ``(N, dim)``."""
        y = F.relu(self.norm1(self.conv1(x, around)))
        return F.relu(self.norm2(self.conv2(y, around)) + x)


class SparseBlocks(VoxelStage):
    """Blocks of one level, every other one in shifted windows, then the way to the next level.

    Args:
        blocks: The blocks.
        encoding: What their voxels are told of positions.
        window: Side of the windows, cells.
        downsample: To the next level, or None.
    """

    def __init__(
        self, blocks: Sequence[SparseBlock], encoding: StageEncoding, window: int, downsample: nn.Module | None = None
    ) -> None:
        super().__init__(encoding)
        self.blocks, self.window = nn.ModuleList(blocks), window
        self.downsample = downsample

    def forward(self, x: Tensor, level: Level) -> Tensor:
        """``(N, dim)`` to ``(N, dim)``."""
        dtype, x = x.dtype, self.told(x, level)
        for i, block in enumerate(self.blocks):
            x = self.run(block, x, level, level.cut(self.window, bool(i % 2)))
        return x.to(dtype)


class KnnDown(nn.Module):
    """To coarser cells: the largest of the projected features of the voxels nearest to each cell's representative.

    Source: Swin3D, arXiv 2304.06906, section 3.3. The search is not limited to the cell.

    Args:
        dim, dim_out: Channels.
        stride: Cells of this level in one of the next, along each axis.
        k: Neighbours.
    """

    def __init__(self, dim: int, dim_out: int, stride: int, k: int = 16, **factory: Any) -> None:
        super().__init__()
        self.stride, self.k = stride, k
        self.norm = nn.LayerNorm(dim, **factory)
        self.linear = nn.Linear(dim, dim_out, bias=False, **factory)

    def forward(self, x: Tensor, level: Level, coarse: Level) -> Tensor:
        """``(N, dim)`` to ``(M, dim_out)``."""
        rows, _ = level.nearest(coarse, self.k)
        return self.linear(self.norm(x))[rows].max(dim=1).values


class GridDown(nn.Module):
    """To coarser cells: the largest of the projected features of each cell's voxels.

    Args:
        dim, dim_out, stride: See :class:`KnnDown`.
    """

    def __init__(self, dim: int, dim_out: int, stride: int, **factory: Any) -> None:
        super().__init__()
        self.stride = stride
        self.norm = _Inner("norm", nn.LayerNorm(dim, **factory))
        self.linear = _Inner("linear", nn.Linear(dim, dim_out, bias=False, **factory))

    def forward(self, x: Tensor, level: Level, coarse: Level) -> Tensor:
        """``(N, dim)`` to ``(M, dim_out)``."""
        return largest_of_groups(self.linear(self.norm(x)), groups(level, coarse), len(coarse.voxels))


class Upsample(nn.Module):
    """From a level to the finer one: its features, interpolated from three neighbours, join those of the encoder.

    Source: Swin3D, arXiv 2304.06906, section 3.4; weights fall with the distance, not with its square.

    Args:
        dim, dim_out: Channels of the coarse and of the fine level.
        k: Neighbours.
        blocks: Attention on the finer level, or None.
    """

    def __init__(self, dim: int, dim_out: int, k: int = 3, blocks: SparseBlocks | None = None, **factory: Any) -> None:
        super().__init__()
        self.k = k
        self.linear1 = nn.Sequential(nn.LayerNorm(dim_out, **factory), nn.Linear(dim_out, dim_out, **factory))
        self.linear2 = nn.Sequential(nn.LayerNorm(dim, **factory), nn.Linear(dim, dim_out, **factory))
        self.block = blocks

    def forward(self, x: Tensor, coarse: Level, skip: Tensor, level: Level) -> Tensor:
        """Coarse ``(M, dim)`` and the encoder's fine ``(N, dim_out)`` to ``(N, dim_out)``."""
        rows, distance = coarse.nearest(level, self.k)
        weight = 1 / (distance + 1e-8)  # zero where a cloud has fewer neighbours
        weight = (weight / weight.sum(1, keepdim=True)).to(x.dtype)
        out = self.linear1(skip)
        y = self.linear2(x)
        for near, share in zip(rows.unbind(1), weight.unbind(1)):
            out = out + y[near] * share[:, None]
        return out if self.block is None else self.block(out, level)
