"""Where a cloud is seen from: the same for the page and the picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FIELD = 40.0  # degrees, top to bottom


@dataclass
class View:
    """A camera that looks at the middle of a cloud.

    Args:
        azimuth: Degrees about z; -90 looks along y.
        elevation: Degrees above the horizon.
    """

    azimuth: float = -60.0
    elevation: float = 38.0

    def axes(self) -> NDArray[np.floating]:
        """Right, up and backward of the camera, ``(3, 3)``, a row each."""
        a, e = np.radians([self.azimuth, self.elevation])
        back = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
        right = np.array([-np.sin(a), np.cos(a), 0.0])
        return np.stack((right, np.cross(back, right), back))


def extent(points: NDArray) -> tuple[NDArray, NDArray]:
    """Lower and upper corner of all but the outermost points."""
    low, high = np.percentile(points, (0.5, 99.5), axis=0)
    return low, high


def spacing(points: NDArray) -> float:
    """About how far points lie from their neighbours, metres."""
    low, high = extent(points)
    cell = max(float(np.linalg.norm(high - low)) / 150, 1e-6)
    occupied = len(np.unique(np.floor((points - low) / cell).astype(np.int64), axis=0))
    return cell * float(np.sqrt(occupied / len(points)))
