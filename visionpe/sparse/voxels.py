"""Point clouds to voxels, and back."""

from __future__ import annotations

import torch
from torch import Tensor

from visionpe.checks import check_number
from visionpe.sparse.cells import INT32, grouped


def check_points(positions: Tensor, size: float, name: str = "positions") -> None:
    """Refuse what is no cloud of points, or no size of a voxel.

    Raises:
        ValueError: See :func:`voxelize`.
    """
    if not isinstance(positions, Tensor) or positions.dtype.is_complex:
        raise TypeError(f"{name}={type(positions).__name__}; allowed: a tensor of numbers (P, axes)")
    if positions.ndim != 2 or not len(positions):
        raise ValueError(f"{name} must be (P, axes) with at least one point, got {tuple(positions.shape)}")
    check_number("size", size, above=0)
    if not positions.isfinite().all():
        raise ValueError(f"{name} hold {int((~positions.isfinite()).any(1).sum())} points with NaN or infinity")


def voxelize(
    positions: Tensor, *, size: float, batch: Tensor | None = None, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """One point for each voxel that holds any.

    Args:
        positions: ``(P, axes)``, any unit.
        size: Side of a voxel, in the same unit.
        batch: Cloud of each point ``(P,)``, in ascending order; default one cloud.
        generator: Picks a random point of each voxel, as in training; without one it is the first.

    Returns:
        ``coords`` ``(N, 1 + axes)`` int64, batch index first, rounded down; the point of each voxel ``(N,)``; the voxel
        of each point ``(P,)``, which takes scores of voxels back to points.

    Raises:
        ValueError: If there is no point, a position is not finite or leaves int32 in voxels, ``size`` is not positive,
            or ``batch`` is not in ascending order.
    """
    check_points(positions, size)
    if batch is None:
        batch = torch.zeros(len(positions), dtype=torch.long, device=positions.device)
    if (batch.diff() < 0).any():
        raise ValueError("batch must be in ascending order, the points of a cloud together")
    cells = (positions.double() / float(size)).floor()  # float32 has too few digits for large clouds
    if cells.abs().max() >= INT32:
        raise ValueError(f"positions / size reach {float(cells.abs().max()):.3g} voxels; allowed: int32")
    cells = torch.cat((batch[:, None].long(), cells.long()), dim=1)
    voxel, first = grouped(cells)
    if generator is None:
        return cells[first], first, voxel
    shuffled = torch.randperm(len(cells), generator=generator).to(cells.device)
    chosen = torch.empty_like(first)
    chosen[voxel[shuffled]] = shuffled  # the last one stays
    return cells[first], chosen, voxel
