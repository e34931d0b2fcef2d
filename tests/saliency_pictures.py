"""Generated photographs for saliency: red discs before white, and green noise to paste them on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def disc(height: int, width: int, *, radius: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A disc in the middle of white, ``(height, width, 3)``, and where it is."""
    generator = np.random.default_rng(seed)
    y, x = np.ogrid[:height, :width]
    where = (y - height // 2) ** 2 + (x - width // 2) ** 2 <= radius**2
    picture = np.full((height, width, 3), 255, np.uint8)
    texture = generator.integers(0, 40, (height, width, 3)).astype(np.uint8) + np.array([200, 0, 0], np.uint8)
    picture[where] = texture[where]
    return picture, where


def write_objects(folder: Path, *, folders: int = 2, each: int = 4) -> Path:
    """Discs in sub-folders."""
    for i in range(folders):
        (folder / str(i)).mkdir(parents=True)
        for j in range(each):
            picture, _ = disc(80, 100, radius=20 + 2 * j, seed=10 * i + j)
            Image.fromarray(picture).save(folder / str(i) / f"{j}.png")
    return folder


def write_backgrounds(folder: Path, count: int = 10) -> Path:
    """Green noise."""
    folder.mkdir(parents=True)
    for i in range(count):
        noise = np.random.default_rng(i).integers(0, 60, (90, 120, 3)).astype(np.uint8) + np.array([0, 90, 0], np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    return folder
