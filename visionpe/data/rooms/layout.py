"""Furnished rooms as cuboids: which stand where, of which class and material."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visionpe.data.rooms.materials import NAMES, OF_CLASS

Array = NDArray[np.float64]
Range = tuple[float, float]

CLASSES = ("floor", "wall", "table", "chair", "box")
FLOOR, WALL, NOTHING = -1, -2, -3  # beside the numbers of cuboids
PALETTE = ((158, 158, 150), (120, 170, 215), (225, 130, 40), (60, 160, 90), (165, 80, 175))


@dataclass
class Cuboids:
    """Upright cuboids, one row each: centre and half sides in metres, angle about z, class, object, material."""

    centres: Array  # (B, 3)
    halves: Array  # (B, 3)
    angles: Array  # (B,), radians
    labels: NDArray[np.int64]  # (B,)
    objects: NDArray[np.int64]  # (B,)
    materials: NDArray[np.int64]  # (B,), places in NAMES

    def __len__(self) -> int:
        return len(self.centres)

    def joined(self, other: Cuboids) -> Cuboids:
        return Cuboids(*(np.concatenate((getattr(self, k), getattr(other, k))) for k in self.__dataclass_fields__))

    def axes(self) -> Array:
        """The two horizontal axes of each, ``(B, 2, 2)``."""
        c, s = np.cos(self.angles), np.sin(self.angles)
        return np.stack((np.stack((c, s), -1), np.stack((-s, c), -1)), 1)

    def reach(self) -> Array:
        """Half the extent along x and y of the room, ``(B, 2)``."""
        return np.einsum("bi,bij->bj", self.halves[:, :2], np.abs(self.axes()))


def overlaps(a: Cuboids, b: Cuboids, margin: float = 0.0) -> NDArray[np.bool_]:
    """Which cuboids come closer than ``margin`` metres along an axis of theirs: ``(A, B)``; separating axis theorem."""
    apart = b.centres[None] - a.centres[:, None]  # (A, B, 3)
    hit = np.abs(apart[..., 2]) < a.halves[:, None, 2] + b.halves[None, :, 2] + margin
    sides_a, sides_b = (x.axes() * x.halves[:, :2, None] for x in (a, b))  # (., 2, 2)
    for axes in (a.axes()[:, None], b.axes()[None]):
        gap = np.abs(np.einsum("xyj,xykj->xyk", apart[..., :2], np.broadcast_to(axes, (*hit.shape, 2, 2))))
        span_a = np.abs(np.einsum("xij,xykj->xyki", sides_a, np.broadcast_to(axes, (*hit.shape, 2, 2)))).sum(-1)
        span_b = np.abs(np.einsum("yij,xykj->xyki", sides_b, np.broadcast_to(axes, (*hit.shape, 2, 2)))).sum(-1)
        hit &= (gap < span_a + span_b + margin).all(-1)
    return hit


@dataclass
class Layout:
    """A room: its sides in metres, what stands in it, and where it is seen from."""

    size: Array  # (3,)
    furniture: Cuboids
    viewpoints: Array  # (V, 3)
    shell: NDArray[np.int64]  # (2,): materials of the floor and the walls


class Builder:
    """Puts furniture into one room with one random generator; nothing overlaps."""

    TRIES = 40

    def __init__(self, size: Array, rng: np.random.Generator) -> None:
        self.size, self.rng = size, rng
        none = np.zeros(0, np.int64)
        self.parts = Cuboids(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0), none, none, none)
        self.count = 0

    def material(self, name: str) -> int:
        return NAMES.index(str(self.rng.choice(OF_CLASS[name])))

    def assembled(self, name: str, local: list[tuple[Array, Array]], materials: list[int]) -> Cuboids:
        """Cuboids of one object about its own origin, from lower and upper corners."""
        low, high = (np.array([pair[i] for pair in local], float) for i in (0, 1))
        n, label = len(local), CLASSES.index(name)
        whole = (np.full(n, label), np.full(n, self.count), np.array(materials))
        return Cuboids((low + high) / 2, (high - low) / 2, np.zeros(n), *whole)

    def place(self, thing: Cuboids, x: float, y: float, z: float, angle: float, margin: float = 0.02) -> bool:
        """Turn and move an object into the room; False where it would touch something or leave."""
        c, s = np.cos(angle), np.sin(angle)
        centres = thing.centres @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) + [x, y, z]
        moved = Cuboids(centres, thing.halves, thing.angles + angle, thing.labels, thing.objects, thing.materials)
        reach, flat = moved.reach(), moved.centres[:, :2]
        if (flat - reach < margin).any() or (flat + reach > self.size[:2] - margin).any():
            return False
        if len(self.parts) and overlaps(moved, self.parts, margin if z == 0 else 0.0).any():
            return False
        self.parts, self.count = self.parts.joined(moved), self.count + 1
        return True

    def anywhere(self, thing: Cuboids) -> tuple[float, float, float] | None:
        """Stand it on the floor: beside a wall, square to the room, as often as at any angle."""
        for _ in range(self.TRIES):
            x, y = self.rng.uniform(0.2, self.size[:2] - 0.2)
            angle = self.rng.uniform(0, 2 * np.pi) if self.rng.random() < 0.5 else np.pi / 2 * self.rng.integers(4)
            if self.place(thing, x, y, 0.0, angle):
                return x, y, angle
        return None

    def table(self) -> tuple[Array, tuple[float, float, float]] | None:
        """A top on four legs; its sides and where it stands."""
        w, d, h = self.rng.uniform((0.8, 0.6, 0.66), (1.5, 0.9, 0.78))
        top, leg = self.rng.uniform(0.03, 0.05), self.rng.uniform(0.045, 0.07)
        parts = [(np.array([-w / 2, -d / 2, h - top]), np.array([w / 2, d / 2, h]))] + legs(w, d, h - top, leg)
        materials = [self.material("table")]
        materials += 4 * [materials[0] if self.rng.random() < 0.6 else self.material("table")]
        where = self.anywhere(self.assembled("table", parts, materials))
        return None if where is None else (np.array([w, d, h]), where)

    def chair(self, table: tuple[Array, tuple[float, float, float]] | None) -> bool:
        """Seat, back and four legs; pushed some way under a table, or anywhere."""
        w, d, h = self.rng.uniform((0.38, 0.38, 0.42), (0.48, 0.46, 0.48))
        thick, leg, tall = 0.04, self.rng.uniform(0.03, 0.045), self.rng.uniform(0.8, 1.0)
        parts = [
            (np.array([-w / 2, -d / 2, h - thick]), np.array([w / 2, d / 2, h])),
            (np.array([-w / 2, -d / 2, h]), np.array([w / 2, -d / 2 + thick, tall])),
            *legs(w, d, h - thick, leg),
        ]
        materials = [self.material("chair")] * 2
        materials += 4 * [materials[0] if self.rng.random() < 0.6 else self.material("chair")]
        thing = self.assembled("chair", parts, materials)
        for _ in range(self.TRIES if table else 0):
            (tw, td, _), (x, y, angle) = table  # type: ignore[misc]
            side = np.pi * self.rng.integers(2)
            along = self.rng.uniform(-tw / 2 + w / 2, tw / 2 - w / 2)
            away = td / 2 + d / 2 - self.rng.uniform(-0.25, d - 0.1)
            c, s = np.cos(angle + side), np.sin(angle + side)
            turned = angle + side + self.rng.normal(0, 0.12)
            if self.place(thing, x + c * along + s * away, y + s * along - c * away, 0.0, turned):
                return True
        return self.anywhere(thing) is not None

    def box(self, on: tuple[Array, tuple[float, float, float]] | None) -> bool:
        """A closed box: small on a table, of any size or as tall as a cupboard on the floor."""
        if on is not None:
            (tw, td, th), (x, y, angle) = on
            sides = self.rng.uniform(0.12, 0.35, 3)
            room = np.maximum(np.array([tw, td]) / 2 - sides[:2].max() / 2 * np.sqrt(2), 0)
            u, v = self.rng.uniform(-room, room)
            c, s = np.cos(angle), np.sin(angle)
            where = (x + c * u - s * v, y + s * u + c * v, th, self.rng.uniform(0, 2 * np.pi))
            return self.place(self._closed(sides), *where)
        cupboard = self.rng.random() < 0.25
        sides = self.rng.uniform((0.35, 0.3, 0.8), (0.8, 0.45, 1.5)) if cupboard else self.rng.uniform(0.2, 0.7, 3)
        return self.anywhere(self._closed(sides)) is not None

    def _closed(self, sides: Array) -> Cuboids:
        w, d, h = sides
        corner = np.array([w / 2, d / 2, 0.0])
        return self.assembled("box", [(-corner, corner + [0, 0, h])], [self.material("box")])

    def viewpoints(self, number: int) -> Array:
        """Places of the sensor, at eye height, off walls and furniture; ``(V, 3)``."""
        found: list[Array] = []
        none = np.zeros(1, np.int64)
        for _ in range(1000):
            spot = self.rng.uniform((0.35, 0.35, 1.2), (*(self.size[:2] - 0.35), min(1.75, self.size[2] - 0.05)))
            about = Cuboids(spot[None], np.full((1, 3), 0.15), np.zeros(1), none, none, none)
            if not overlaps(about, self.parts).any():
                found.append(spot)
            if len(found) == number:
                break
        return np.stack(found)


def legs(w: float, d: float, h: float, leg: float) -> list[tuple[Array, Array]]:
    """Four legs under the corners of ``w`` x ``d``, from the floor to ``h``."""
    corners = [(x, y) for x in (-w / 2, w / 2 - leg) for y in (-d / 2, d / 2 - leg)]
    return [(np.array([x, y, 0.0]), np.array([x + leg, y + leg, h])) for x, y in corners]
