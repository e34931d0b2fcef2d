"""Coarser cells, and the voxel that stands for each."""

from __future__ import annotations

import torch
from torch import Tensor

from visionpe.checks import check_count
from visionpe.sparse.cells import grouped


def coarsen(coords: Tensor, signals: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cells of ``stride`` voxels, each with the whole signal row of one of its voxels.

    The voxel is the one whose signals, all columns alike, are nearest to the mean of the cell's; of equally near ones
    (two voxels always are) the one of the lowest row.

    Source: Swin3D, arXiv 2304.06906, section 3.3, with a rule where the official code leaves the choice to chance.

    Args:
        coords: ``(N, 1 + axes)`` int64, batch index first, lower corners of cells in finest voxels.
        signals: ``(N, columns)``.
        stride: Of the coarse cells, in finest voxels.

    Raises:
        ValueError: If ``stride`` is not positive.

    Returns:
        Coarse ``coords`` and ``signals`` ``(M, ...)`` by first appearance, and the row of each one's voxel ``(M,)``.
    """
    check_count("stride", stride)
    corner = coords.clone()
    corner[:, 1:] = coords[:, 1:].div(stride, rounding_mode="floor") * stride
    group, first = grouped(corner)
    mean = signals.new_zeros(len(first), signals.shape[1]).index_add(0, group, signals)
    mean = mean / torch.bincount(group)[:, None]
    distance = (signals - mean[group]).square().sum(1).sqrt()
    least = distance.new_full((len(first),), torch.inf).scatter_reduce(0, group, distance, "amin")
    # Equal up to rounding: the mean of two lies as far from one as from the other.
    close = distance <= least[group] * (1 + 1e-5) + 1e-6
    rows = torch.where(close, torch.arange(len(coords), device=coords.device), len(coords))
    chosen = torch.full_like(first, len(coords)).scatter_reduce(0, group, rows, "amin")
    return corner[first], signals[chosen], chosen
