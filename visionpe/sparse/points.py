"""From points to the voxels that Swin3D and Point Transformer V3 take, as their recipes make them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from visionpe.checks import check_choice
from visionpe.sparse.cloud import Voxels
from visionpe.sparse.voxels import check_points, voxelize

# Keeps the largest difference of two colours off the end of the tables: signals, not features, are divided by it.
MARGIN = 1.001


Recipe = Literal["swin3d", "ptv3"]


def pack_voxels(positions: Tensor, coords: Tensor, *looks: Tensor, recipe: Recipe = "swin3d") -> Voxels:
    """One chosen point for each voxel to features and signals.

    Features are ``[colour, normal, offset]`` for Swin3D, the last of which is the place of the point inside its voxel,
    0 to 1; and ``[colour in 0..1, normal]`` for Point Transformer V3. Source: Swin3D, arXiv 2304.06906, and Pointcept,
    their recipes for S3DIS and ScanNet.

    Args:
        positions: ``(N, 3)``, voxels.
        coords: ``(N, 4)``: cloud, then the cell of each.
        looks: Colour, then normal, where there are any, ``(N, 3)`` in -1..1.
        recipe: ``swin3d`` or ``ptv3``.
    """
    check_choice("recipe", recipe, Recipe)
    parts = [*looks, positions - coords[:, 1:]] if recipe == "swin3d" else [(looks[0] + 1) / 2, *looks[1:]]
    return Voxels(torch.cat(parts, 1), coords, torch.cat((positions, *(look / MARGIN for look in looks)), dim=1))


def voxels_of_points(
    points: Tensor,
    *,
    size: float,
    colors: Tensor | None = None,
    normals: Tensor | None = None,
    recipe: Recipe = "swin3d",
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
        recipe: Whose features, see :func:`pack_voxels`. Those of ``ptv3`` need colours.
        generator: Picks a random point of each voxel, as in training; without one it is the first.

    Returns:
        The voxels, with the features and signals that there are, and the voxel of each point ``(P,)``.

    Raises:
        ValueError: If colours or normals are not one row a point, or for what :func:`visionpe.sparse.voxelize` refuses.
    """
    check_points(points, size, "points")
    check_choice("recipe", recipe, Recipe)
    if recipe == "ptv3" and colors is None:
        raise ValueError("recipe='ptv3' has features of colours; allowed: colors, and normals where the model has them")
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
    return pack_voxels(places[chosen], coords, *(look[chosen] for look in looks), recipe=recipe), voxel
