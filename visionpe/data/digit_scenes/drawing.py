"""Digit scenes as pictures: real handwritten digits on canvases with clutter.

The digits are the MNIST scans of :mod:`visionpe.data.digits`: training scenes hold its training digits,
validation scenes its test digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from visionpe.data.digits import load_digits

Range = tuple[int, int]

SPLITS = ("train", "val")
SOURCE = {"train": "train", "val": "test"}
INK = 0.4  # coverage from which a pixel belongs to the digit


@dataclass(frozen=True)
class SceneSettings:
    """What the scenes look like. Every pair is a least and a greatest value, drawn uniformly, both included.

    Args:
        train: Training scenes.
        val: Validation scenes.
        size: Height and, drawn apart, width of a canvas in pixels; at least 32, as mmdet drops smaller images.
        digit_size: Longer side of a digit in pixels.
        digits: Digits in a scene; fewer where no room is left.
        clutter: Scribbles and fragments of digits in a scene.
        seed: The same seed gives the same bytes; scene ``i`` does not depend on how many there are.

    Raises:
        ValueError: If a value is out of range; names it.
    """

    train: int = 6000
    val: int = 200
    size: Range = (64, 64)
    digit_size: Range = (20, 28)
    digits: Range = (1, 4)
    clutter: Range = (0, 3)
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"train": 1, "val": 1, "size": 32, "digit_size": 8, "digits": 1, "clutter": 0, "seed": 0}
        for field in fields(self):
            value, floor = getattr(self, field.name), least[field.name]
            low, high = value if isinstance(value, tuple) else (value, value)
            if not floor <= low <= high:
                raise ValueError(f"{field.name}={value}: must be at least {floor}, least value first")
        if self.digit_size[1] > self.size[0]:
            raise ValueError(f"digit_size={self.digit_size}: larger than the smallest canvas, {self.size[0]} pixels")


class Scene(NamedTuple):
    """One picture and its digits."""

    image: NDArray[np.uint8]  # (height, width, 3), BGR
    masks: list[NDArray[np.bool_]]  # of (height, width), disjoint
    labels: list[int]  # 0..9


class _Brush:
    """Paints on one canvas with one random generator."""

    def __init__(self, height: int, width: int, rng: np.random.Generator) -> None:
        self.rng = rng
        self.taken = np.zeros((height, width), bool)
        # A dark gradient of random direction and colour, with noise.
        y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
        slope = rng.uniform(-20, 20, 2)
        shade = 55 + slope[0] * (y - 0.5) + slope[1] * (x - 0.5)  # (height, width)
        self.image = shade[..., None] + rng.uniform(-25, 25, 3) + rng.normal(0, 10, (height, width, 3))

    def paint(self, coverage: NDArray[np.floating], top: int, left: int, light: float) -> None:
        """Blend one random bright colour in; ``coverage`` (h, w) in 0..1, its corner at (top, left)."""
        height, width = coverage.shape
        region = self.image[top : top + height, left : left + width]
        colour = self.rng.uniform(130, 255, 3) * light
        region += coverage[..., None] * (colour - region)

    def place(self, height: int, width: int) -> tuple[int, int]:
        """A random corner for a patch that fits in."""
        rows, columns = self.taken.shape
        return int(self.rng.integers(0, rows - height + 1)), int(self.rng.integers(0, columns - width + 1))


def _resized(glyph: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """``glyph`` with its longer side ``side`` pixels long."""
    factor = side / max(glyph.shape)
    height, width = (max(round(length * factor), 2) for length in glyph.shape)
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(glyph, (width, height), interpolation=method).clip(0, 1)


def _scribble(brush: _Brush, side: int) -> None:
    """A thin crooked line: brighter than the ground, crooked as no digit is."""
    rng, (rows, columns) = brush.rng, brush.taken.shape
    points = rng.uniform(0, side, (int(rng.integers(4, 7)), 2)) + [rng.uniform(0, columns), rng.uniform(0, rows)]
    layer = np.zeros((rows, columns), np.uint8)
    # Four fractional bits make the line smooth.
    shifted = np.round((points - side / 2) * 16).astype(np.int32)
    cv2.polylines(layer, [shifted], False, (255,), 1, cv2.LINE_AA, shift=4)
    brush.paint(layer.astype(np.float32) / 255, 0, 0, light=0.75)


def _fragment(brush: _Brush, glyph: NDArray[np.float32], side: int) -> None:
    """A piece of a digit, under half of each side: too small to be one."""
    rng, whole = brush.rng, _resized(glyph, side)
    height, width = (max(int(length * rng.uniform(0.25, 0.45)), 2) for length in whole.shape)
    y, x = (int(rng.integers(0, length - part + 1)) for length, part in zip(whole.shape, (height, width)))
    brush.paint(whole[y : y + height, x : x + width], *brush.place(height, width), light=0.9)


def _digit(brush: _Brush, glyph: NDArray[np.float32], side: int, tries: int = 20) -> NDArray[np.bool_] | None:
    """A digit that touches no other; its mask, or None where there is no room."""
    glyph = _resized(glyph, side)
    height, width = glyph.shape
    for _ in range(tries):
        top, left = brush.place(height, width)
        mask = np.zeros_like(brush.taken)
        mask[top : top + height, left : left + width] = glyph > INK
        if not (mask & brush.taken).any():
            # A margin of a pixel keeps neighbours apart.
            brush.taken |= cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
            brush.paint(glyph, top, left, light=1.0)
            return mask
    return None


def _glyphs(split: str) -> tuple[list[NDArray[np.float32]], list[int]]:
    """The digits of a split, cut to their ink, coverage in 0..1; their labels."""
    images, labels = load_digits(SOURCE[split], "mnist")  # type: ignore[arg-type]
    glyphs = []
    for image in images[:, 0].numpy():
        ink = image > 255 * INK
        rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
        cut = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        glyphs.append(cut.astype(np.float32) / 255)
    return glyphs, labels.tolist()


def scenes(split: str, settings: SceneSettings) -> Iterator[Scene]:
    """Draw the scenes of a split, one after the other.

    Args:
        split: ``train`` or ``val``: which digits are used, and how many scenes there are.
        settings: What they look like.

    Yields:
        :class:`Scene`, with at least one digit each.

    Raises:
        ValueError: If ``split`` is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is unknown; allowed: {', '.join(SPLITS)}")
    glyphs, labels = _glyphs(split)
    for index in range(getattr(settings, split)):
        rng = np.random.default_rng([settings.seed, SPLITS.index(split), index])

        def draw(span: Range, rng: np.random.Generator = rng) -> int:
            return int(rng.integers(span[0], span[1], endpoint=True))

        brush = _Brush(draw(settings.size), draw(settings.size), rng)
        for _ in range(draw(settings.clutter)):
            if rng.random() < 0.5:
                _scribble(brush, settings.digit_size[0])
            else:
                _fragment(brush, glyphs[rng.integers(len(glyphs))], draw(settings.digit_size))
        masks, found = [], []
        for _ in range(draw(settings.digits)):
            chosen = int(rng.integers(len(glyphs)))
            mask = _digit(brush, glyphs[chosen], draw(settings.digit_size))
            if mask is not None:
                masks.append(mask)
                found.append(labels[chosen])
        yield Scene(brush.image.round().clip(0, 255).astype(np.uint8), masks, found)
