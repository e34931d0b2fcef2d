"""The colours a sensor sees in a furnished room."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from visionpe.data.rooms.layout import FLOOR, WALL, Array, Layout
from visionpe.data.rooms.materials import MATERIALS, NAMES, texture


def paint(points: Array, normal: Array, part: NDArray[np.int64], layout: Layout, rng: np.random.Generator) -> Array:
    """Colours ``(P, 3)`` in 0..255: material, texture, a pattern on floor and walls, shade and noise."""
    furniture = layout.furniture
    pieces = np.append(furniture.materials, layout.shell[::-1])  # rows -2 and -1 are wall and floor
    owner = np.append(furniture.objects, [WALL, FLOOR])
    colours = np.empty((len(points), 3))
    tints = {o: rng.normal(1, 0.07, 3) * rng.normal(1, 0.08) for o in np.unique(owner)}
    for b in np.unique(part):
        chosen = part == b
        base, kind = MATERIALS[NAMES[pieces[b]]]
        speckle = 0.10 if kind == "speckle" else 0.02
        light = texture(points[chosen], kind, float(owner[b])) + rng.normal(0, speckle, int(chosen.sum()))
        colours[chosen] = np.array(base) * tints[owner[b]] * light[:, None]
    for b, spots in ((FLOOR, 1), (WALL, 3)):  # a rug; posters, doors and windows
        for _ in range(int(rng.integers(0, spots, endpoint=True))):
            middle, axis = rng.uniform(0, layout.size), int(rng.integers(2))
            if b == WALL:
                middle[axis] = layout.size[axis] * rng.integers(2)
            reach = rng.uniform(0.3, 0.8, 3)
            inside = (np.abs(points - middle) < reach)[:, : 3 if b == WALL else 2].all(1)
            name = NAMES[rng.integers(len(NAMES))]
            colours[inside & (part == b)] = np.array(MATERIALS[name][0]) * rng.normal(1, 0.07)
    lamp = layout.size * [*rng.uniform(0.3, 0.7, 2), 1] - points
    away = np.linalg.norm(lamp, axis=1)
    facing = np.maximum((lamp * normal).sum(1) / np.maximum(away, 1e-6), 0)
    shade = 0.62 + 0.45 * facing / (1 + (away / 3) ** 2)
    return colours * shade[:, None] * rng.uniform(0.85, 1.15) + rng.normal(0, 4, colours.shape)
