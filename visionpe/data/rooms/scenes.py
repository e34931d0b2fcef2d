"""Labelled rooms, built by rule and seen by a sensor: floor, walls, tables, chairs and boxes.

A room is a closed shell with furniture of upright cuboids. Rays leave one to three places inside it; each keeps the
first surface that it meets, so what is hidden from all of them has no points: chairs under tables, the backs of boxes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from visionpe.data.rooms.layout import CLASSES, FLOOR, NOTHING, PALETTE, WALL, Array, Builder, Layout, Range
from visionpe.data.rooms.paint import paint

__all__ = ["CLASSES", "PALETTE", "make_layout", "make_room", "scan"]

LEAST_SIDE = 2.0  # metres; a table and a few chairs fit in
RAYS = 3  # for each point that is kept; half of them at least meet something
GOLDEN = np.pi * (3 - np.sqrt(5))


def _count(rng: np.random.Generator, span: tuple[int, int]) -> int:
    return int(rng.integers(span[0], span[1], endpoint=True))


def make_layout(
    seed: int,
    *,
    side: Range = (2.4, 4.0),
    height: Range = (1.7, 2.2),
    tables: tuple[int, int] = (1, 2),
    chairs: tuple[int, int] = (3, 6),
    boxes: tuple[int, int] = (3, 8),
    views: tuple[int, int] = (1, 3),
) -> Layout:
    """Furnish a room. Every pair is a least and a greatest value, drawn uniformly, both included.

    Args:
        seed: The same seed gives the same room.
        side: Length and, drawn apart, width, metres; at least 2.
        height: Up to which walls are seen, metres; at least 1.6. There is no ceiling.
        tables, chairs, boxes: How many; fewer where no room is left.
        views: Places the room is seen from, at least 1.

    Raises:
        ValueError: If a value is out of range; names it.
    """
    spans = {"side": (side, LEAST_SIDE), "height": (height, 1.6), "views": (views, 1)}
    spans |= {"tables": (tables, 0), "chairs": (chairs, 0), "boxes": (boxes, 0)}
    for name, ((low, high), least) in spans.items():
        if not least <= low <= high:
            raise ValueError(f"{name}={(low, high)}: must be at least {least}, least value first")
    if seed < 0:
        raise ValueError(f"seed={seed}: must be at least 0")
    rng = np.random.default_rng([7, seed])
    builder = Builder(np.array([*rng.uniform(*side, 2), rng.uniform(*height)]), rng)
    shell = np.array([builder.material("floor"), builder.material("wall")])
    standing = [table for _ in range(_count(rng, tables)) if (table := builder.table())]
    for _ in range(_count(rng, chairs)):
        builder.chair(standing[rng.integers(len(standing))] if standing and rng.random() < 0.7 else None)
    for _ in range(_count(rng, boxes)):
        on = standing[rng.integers(len(standing))] if standing and rng.random() < 0.3 else None
        builder.box(on)
    return Layout(builder.size, builder.parts, builder.viewpoints(_count(rng, views)), shell)


def _directions(number: int, rng: np.random.Generator) -> Array:
    """Unit vectors spread evenly over the sphere, ``(number, 3)``."""
    z = 1 - (2 * np.arange(number) + 1) / number
    angle = GOLDEN * np.arange(number) + rng.uniform(0, 2 * np.pi)
    flat = np.sqrt(1 - z**2)
    return np.stack((flat * np.cos(angle), flat * np.sin(angle), z), 1)


def _shell(origin: Array, rays: Array, size: Array) -> tuple[Array, NDArray[np.int64]]:
    """Distance to the shell and the axis of the face, from inside."""
    with np.errstate(divide="ignore"):
        ahead = (np.where(rays > 0, size, 0.0) - origin) / rays  # (R, 3)
    ahead[np.isnan(ahead)] = np.inf
    axis = ahead.argmin(1)
    return ahead[np.arange(len(rays)), axis], axis


def _cast(layout: Layout, origin: Array, rays: Array) -> tuple[Array, NDArray[np.int64], Array]:
    """First hit of each ray: distance ``(R,)``, cuboid or FLOOR, WALL, NOTHING and normal ``(R, 3)``."""
    far, axis = _shell(origin, rays, layout.size)
    part = np.where(axis < 2, WALL, np.where(rays[:, 2] < 0, FLOOR, NOTHING))
    normal = -np.sign(rays) * np.eye(3)[axis]
    parts = layout.furniture
    centres = parts.centres - origin
    distance = np.linalg.norm(centres, axis=1)
    radius = np.linalg.norm(parts.halves, axis=1)
    # Only rays inside the cone about a cuboid can meet it.
    cone = np.sqrt(np.maximum(distance**2 - radius**2, 0)) / distance
    toward = rays @ (centres / distance[:, None]).T  # (R, B)
    for b in range(len(parts)):
        near = np.flatnonzero(toward[:, b] >= cone[b])
        c, s = np.cos(parts.angles[b]), np.sin(parts.angles[b])
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        local, start = rays[near] @ turn, -centres[b] @ turn
        with np.errstate(divide="ignore", invalid="ignore"):
            enter = (-np.sign(local) * parts.halves[b] - start) / local
            leave = (np.sign(local) * parts.halves[b] - start) / local
        face = enter.argmax(1)
        first = enter[np.arange(len(near)), face]
        hit = (first > 0) & (first < leave.min(1)) & (first < far[near])
        index, face = near[hit], face[hit]
        far[index], part[index] = first[hit], b
        normal[index] = (-np.sign(local[hit]) * np.eye(3)[face]) @ turn.T
    return far, part, normal


def scan(layout: Layout, *, points: int, noise: float, seed: int) -> dict[str, NDArray]:
    """What a sensor at the viewpoints sees of a room; as :func:`make_room`."""
    rng = np.random.default_rng([8, seed])
    share = -(-points // len(layout.viewpoints))
    where: list[Array] = []
    normal: list[Array] = []
    part: list[NDArray[np.int64]] = []
    area: list[Array] = []
    for origin in layout.viewpoints:
        rays = _directions(RAYS * share, rng)
        far, hit, face = _cast(layout, origin, rays)
        met = hit > NOTHING
        far, hit, face, rays = far[met], hit[met], face[met], rays[met]
        area.append(far**2 / np.maximum(-(rays * face).sum(1), 0.1))  # of surface, to the ray
        where.append(origin + rays * (far + rng.normal(0, noise, len(far)))[:, None])
        normal.append(face)
        part.append(hit)
    # As many points to a square metre near the sensor as far away.
    order = rng.exponential(size=sum(map(len, area))) / np.concatenate(area)
    kept = np.sort(np.argpartition(order, points - 1)[:points])
    spots, faces = np.concatenate(where)[kept], np.concatenate(normal)[kept]
    parts = np.concatenate(part)[kept]
    colours = paint(spots, faces, parts, layout, rng)
    labels = np.append(layout.furniture.labels, [CLASSES.index("wall"), CLASSES.index("floor")])[parts]
    return {
        "points": spots.astype(np.float32),
        "colors": colours.round().clip(0, 255).astype(np.uint8),
        "labels": labels,
        "normals": faces.astype(np.float32),
    }


def make_room(
    seed: int,
    *,
    points: int = 40_000,
    noise: float = 0.005,
    side: Range = (2.4, 4.0),
    height: Range = (1.7, 2.2),
    tables: tuple[int, int] = (1, 2),
    chairs: tuple[int, int] = (3, 6),
    boxes: tuple[int, int] = (3, 8),
    views: tuple[int, int] = (1, 3),
) -> dict[str, NDArray]:
    """Build a room and scan it.

    Args:
        seed: The same seed and settings give the same bytes.
        points: How many, exactly.
        noise: Of the distance, along the ray, standard deviation in metres.
        side, height, tables, chairs, boxes, views: See :func:`make_layout`.

    Returns:
        ``points`` ``(P, 3)`` float32 in metres, z up, one corner of the floor at the origin; ``colors`` ``(P, 3)``
        uint8; ``labels`` ``(P,)`` int64, places in ``CLASSES``; ``normals`` ``(P, 3)`` float32, those of the true
        faces, toward the sensor.

    Raises:
        ValueError: If a value is out of range; names it.
    """
    if points < 1:
        raise ValueError(f"points={points}: must be at least 1")
    if not 0 <= noise < 1:
        raise ValueError(f"noise={noise}: must be 0 to 1 metres")
    options = {"side": side, "height": height, "tables": tables, "chairs": chairs, "boxes": boxes, "views": views}
    return scan(make_layout(seed, **options), points=points, noise=noise, seed=seed)  # type: ignore[arg-type]
