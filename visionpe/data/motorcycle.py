"""A real scan: the Middlebury motorcycle, from the stereo pair that scikit-image ships.

Source: Scharstein et al., High-resolution stereo datasets with subpixel-accurate ground truth, GCPR 2014. The
calibration is that of the pair as shipped, a quarter of the full size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FOCAL = 994.978  # pixels
CENTRE = (311.193, 254.877)  # pixels, of the left picture
SHIFT = 31.086  # pixels between the principal points, added to every disparity
BASELINE = 0.193001  # metres


def load_motorcycle() -> dict[str, NDArray]:
    """The left picture, unprojected: a motorcycle in a garage, 343,274 points, 26,682 voxels of 2 cm.

    Returns:
        ``points`` ``(P, 3)`` float32 in metres, x right, y away from the camera, z up, the camera at the origin;
        ``colors`` ``(P, 3)`` uint8; ``normals`` ``(P, 3)`` float32 of unit length, toward the camera, from neighbouring
        pixels. Pixels without disparity are left out.

    Raises:
        ModuleNotFoundError: If scikit-image is missing.
        FileNotFoundError: If its pictures are missing and cannot be fetched.
    """
    try:
        from skimage.data import stereo_motorcycle
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the motorcycle needs scikit-image: pip install 'visionpe[data]'", name=error.name
        ) from error
    try:
        left, _, disparity = stereo_motorcycle()
    except (OSError, ValueError, ModuleNotFoundError) as error:  # missing files are fetched through pooch
        raise FileNotFoundError(
            "scikit-image's motorcycle pictures are missing and cannot be fetched; reinstall scikit-image, whose "
            f"wheels hold them ({str(error).splitlines()[0]})"
        ) from error
    return unproject(left, disparity)


def unproject(picture: NDArray[np.uint8], disparity: NDArray[np.floating]) -> dict[str, NDArray]:
    """Pixels to points, for the calibration above; as :func:`load_motorcycle`.

    Args:
        picture: ``(height, width, 3)``, of the left camera.
        disparity: ``(height, width)`` in pixels; infinite, NaN or not above 0 where unknown.
    """
    known = np.isfinite(disparity) & (disparity > 0)
    depth = FOCAL * BASELINE / (np.where(known, disparity, np.nan).astype(float) + SHIFT)
    row, column = np.mgrid[: depth.shape[0], : depth.shape[1]]
    right, down = (column - CENTRE[0]) * depth / FOCAL, (row - CENTRE[1]) * depth / FOCAL
    points = np.stack((right, depth, -down), -1)  # (height, width, 3)
    normals = np.cross(*(np.gradient(points, axis=axis) for axis in (1, 0)))
    toward = -points
    normals = np.where(np.isfinite(normals).all(-1, keepdims=True), normals, toward)  # at the rim of the unknown
    normals *= np.where((normals * toward).sum(-1, keepdims=True) < 0, -1.0, 1.0)
    with np.errstate(invalid="ignore"):
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return {
        "points": points[known].astype(np.float32),
        "colors": picture[known],
        "normals": normals[known].astype(np.float32),
    }
