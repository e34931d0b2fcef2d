"""From points to the voxels that Swin3D takes, as its recipes make them."""

from __future__ import annotations

import torch
from torch import Tensor

from visionpe.sparse.cloud import Voxels
from visionpe.sparse.voxels import check_points, voxelize

# Keeps the largest difference of two colours off the end of the tables: signals, not features, are divided by it.
MARGIN = 1.001


def pack_voxels(positions: Tensor, coords: Tensor, *looks: Tensor) -> Voxels:
    """One chosen point for each voxel to features ``[colour, normal, offset]`` and signals.

    The offset is the place of the point inside its voxel, 0 to 1. Source: Swin3D, arXiv 2304.06906, its recipes for
    S3DIS and ScanNet.

    Args:
        positions: ``(N, 3)``, voxels.
        coords: ``(N, 4)``: cloud, then the cell of each.
        looks: Colour, then normal, where there are any, ``(N, 3)`` in -1..1.
    """
    features = torch.cat((*looks, positions - coords[:, 1:]), dim=1)
    return Voxels(features, coords, torch.cat((positions, *(look / MARGIN for look in looks)), dim=1))


def voxels_of_points(
    points: Tensor,
    *,
    size: float,
    colors: Tensor | None = None,
    normals: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Voxels, Tensor]:
    """One cloud of points to voxels, and the way back::

        voxels, voxel = voxels_of_points(points, size=0.02, colors=colors)
        scores = model(voxels)[voxel]  # of every point

    Args:
        points: ``(P, 3)``, any unit. The corner of their box becomes the origin.
        size: Side of a voxel in the same unit.
        colors: ``(P, 3)``: bytes, or -1 to 1.
        normals: ``(P, 3)``, -1 to 1.
        generator: Picks a random point of each voxel, as in training; without one it is the first.

    Returns:
        The voxels, with the features and signals that there are, and the voxel of each point ``(P,)``.

    Raises:
        ValueError: If colours or normals are not one row a point, or for what :func:`visionpe.sparse.voxelize` refuses.
    """
    check_points(points, size, "points")
    looks = []
    for name, look in (("colors", colors), ("normals", normals)):
        if look is None:
            continue
        if not isinstance(look, Tensor) or look.dtype.is_complex:
            raise TypeError(
                f"{name}={type(look).__name__}; allowed: a tensor of {tuple(points.shape)}, one row a point"
            )
        if look.shape != points.shape:
            raise ValueError(f"{name} must be {tuple(points.shape)}, one row a point; got {tuple(look.shape)}")
        looks.append(look.float() / 127.5 - 1 if look.dtype == torch.uint8 else look.float())
    # Rounded before cells are found, so that no position leaves its cell.
    places = ((points.double() - points.double().amin(0)) / float(size)).float()
    coords, chosen, voxel = voxelize(places, size=1.0, generator=generator)
    return pack_voxels(places[chosen], coords, *(look[chosen] for look in looks)), voxel
