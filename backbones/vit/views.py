"""Between the views of a scene and one sequence of tokens; each function is one node of a graph."""

from __future__ import annotations

from torch import Tensor

from visionpe.backbones.shared.images import check_views
from visionpe.cameras import Cameras
from visionpe.grid import Grid
from visionpe.tracing import map_size


def as_images(x: Tensor, cameras: Cameras | None) -> Tensor:
    """Views ``(B, V, C, H, W)`` as images ``(B * V, C, H, W)``; without cameras they are images already."""
    if cameras is None:
        return x
    check_views(x, cameras)
    return x.flatten(0, 1)


def full_grid(x: Tensor, prefix: int, cameras: Cameras | None = None) -> Grid:
    """Where the tokens of a map ``(B, height, width, dim)`` stand, behind this many prefix tokens.

    With cameras it is a map of each view, ``(B * V, height, width, dim)``, and the tokens are those of all views.
    """
    return Grid(size=map_size(x), prefix=prefix, cameras=None if cameras is None else cameras.to(x.device))


def as_tokens(x: Tensor, cameras: Cameras | None) -> Tensor:
    """A map of each image or view to the tokens of it or of all views of a scene, ``(B, N, dim)``."""
    return x.flatten(1, 2) if cameras is None else x.unflatten(0, (-1, cameras.count)).flatten(1, 3)
