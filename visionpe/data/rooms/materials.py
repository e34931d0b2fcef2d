"""What furnished rooms are made of: colours, grain, light."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Colours that several classes share, so that colour alone does not tell them apart.
MATERIALS: dict[str, tuple[tuple[int, int, int], str]] = {
    "oak": ((176, 132, 86), "wood"),
    "walnut": ((106, 72, 48), "wood"),
    "pine": ((208, 174, 126), "wood"),
    "white": ((226, 224, 218), "plain"),
    "cream": ((222, 208, 178), "plain"),
    "grey": ((138, 140, 143), "plain"),
    "black": ((52, 50, 52), "plain"),
    "blue": ((84, 116, 162), "plain"),
    "green": ((104, 140, 100), "plain"),
    "red": ((164, 66, 58), "plain"),
    "carton": ((186, 150, 106), "speckle"),
    "felt": ((124, 116, 110), "speckle"),
    "stone": ((182, 178, 170), "tiles"),
}
OF_CLASS = {
    "floor": ("oak", "walnut", "pine", "stone", "felt", "grey"),
    "wall": ("white", "cream", "grey", "blue", "green", "pine", "carton"),
    "table": ("oak", "walnut", "pine", "white", "black", "grey"),
    "chair": ("oak", "walnut", "pine", "white", "black", "blue", "green", "red", "felt"),
    "box": ("carton", "carton", "pine", "white", "cream", "grey", "blue", "green", "red", "walnut"),
}
NAMES = tuple(MATERIALS)


def texture(points: NDArray[np.floating], kind: str, phase: float) -> NDArray[np.floating]:
    """Relative brightness of a material at points ``(P, 3)`` of its own frame."""
    x, y, z = points.T
    if kind == "wood":
        return 1 + 0.10 * np.sin(40 * (y + 0.3 * z) + 3 * np.sin(5 * x + phase) + phase)
    if kind == "tiles":
        seam = (np.abs((points[:, :2] / 0.3 + phase) % 1 - 0.5) > 0.46).any(1)
        return 1 - 0.25 * seam
    return np.ones(len(points))
