"""Voxels to attend among: rooms of any number of voxels, and a real scan."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from visionpe.sparse import voxelize

SIDE = 0.02  # of a voxel, metres
NOISE = 0.003  # of the sensor, metres
LEAST_SIDE = 0.6  # of a room, metres
DENSITY = 4  # points for the area of a voxel's face


def _surfaces(side: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points of floor, walls and boxes ``(P, 3)`` in metres and their colours in -1..1."""

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    height = min(2.6, 0.9 * side + 0.4)
    faces: list[tuple[tuple[float, ...], ...]]  # a corner and two edges each
    faces = [((0, 0, 0), (side, 0, 0), (0, side, 0)), ((0, 0, 0), (side, 0, 0), (0, 0, height))]
    faces += [((x, 0, 0), (0, side, 0), (0, 0, height)) for x in (0, side)]
    for _ in range(max(2, round(1.2 * side))):
        width, depth, up = (0.3 + 0.6 * draw(3)).tolist()
        x, y = ((side - 0.9) * draw(2)).clamp(min=0).tolist()
        turn = math.pi * float(draw(1))
        a = (width * math.cos(turn), width * math.sin(turn), 0)
        b = (-depth * math.sin(turn), depth * math.cos(turn), 0)
        faces.append(((x, y, up), a, b))
        faces += [((x, y, 0), edge, (0, 0, up)) for edge in (a, b)]
        faces += [((x + a[0], y + a[1], 0), b, (0, 0, up)), ((x + b[0], y + b[1], 0), a, (0, 0, up))]
    points, colours = [], []
    for corner, *edges in faces:
        start, u, v = (torch.tensor(e, dtype=torch.float64) for e in (corner, *edges))
        normal = torch.linalg.cross(u, v)
        area = float(normal.norm())
        count = int(DENSITY * area / SIDE**2)
        off = NOISE * torch.randn(count, 1, generator=generator, dtype=torch.float64)
        place = start + draw(count, 1) * u + draw(count, 1) * v + off * normal / area
        shade = 0.05 * torch.randn(count, 3, generator=generator, dtype=torch.float64)
        points.append(place)
        colours.append((1.4 * draw(3) - 0.7 + 0.25 * torch.sin(6 * place) + shade).clamp(-1, 1))
    return torch.cat(points), torch.cat(colours)


def room(voxels: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Exactly so many voxels of a room as large as it takes.

    Returns:
        ``coords`` ``(N, 4)`` with the cloud first; ``signals`` ``(N, 6)``: position in voxels, colour in -1..1.
    """
    side = 1.0
    for _ in range(12):
        generator = torch.Generator().manual_seed(seed)
        points, colours = _surfaces(side, generator)
        coords, first, _ = voxelize(points, size=SIDE)
        if voxels <= len(coords) and (len(coords) <= 1.05 * voxels or side <= LEAST_SIDE):
            break
        side = max(LEAST_SIDE, side * (1.02 * voxels / len(coords)) ** 0.5)
    if len(coords) < voxels:
        raise ValueError(f"voxels={voxels}: the room came out with {len(coords)}")
    signals = torch.cat((points[first] / SIDE, colours[first] / 1.001), dim=1).float()
    away = (signals[:, :3] - signals[:, :3].mean(0)).square().sum(1)
    kept = away.argsort()[:voxels].sort().values
    return coords[kept], signals[kept]


def motorcycle() -> tuple[Tensor, Tensor]:
    """The real scan that scikit-image ships, at 2 cm; as :func:`room`."""
    from visionpe.data.motorcycle import load_motorcycle

    cloud = load_motorcycle()
    points = torch.from_numpy(cloud["points"]).double()
    colours = torch.from_numpy(cloud["colors"]).double() / 127.5 - 1
    coords, first, _ = voxelize(points, size=SIDE)
    return coords, torch.cat((points[first] / SIDE, colours[first] / 1.001), dim=1).float()
