"""Augmentation of clouds, as the recipes of Swin3D and Point Transformer V3 have it.

Random numbers are numpy's global ones, which mmengine seeds.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from numpy.typing import NDArray

from visionpe.checks import check_choice, check_number

Results = dict[str, Any]

VECTORS: tuple[str, ...] = ("points", "normals")
ROWS = ("points", "colors", "normals", "labels", "coords")


def rows_of(results: Results, chosen: NDArray[np.integer]) -> Results:
    """What has a row a point, of the points that are chosen."""
    return {key: results[key][chosen] for key in ROWS if key in results}


@TRANSFORMS.register_module()
class RotateCloud(BaseTransform):
    """Turn the cloud, and its normals, about an axis; by any angle about z by default.

    Args:
        axis: ``x``, ``y`` or ``z``.
        degrees: Least and greatest angle.
        prob: How often, 0..1.
    """

    def __init__(
        self, axis: Literal["x", "y", "z"] = "z", degrees: tuple[float, float] = (0, 360), prob: float = 1.0
    ) -> None:
        check_choice("axis", axis, ("x", "y", "z"))
        low, high = degrees
        if not -360 <= low <= high <= 360:
            raise ValueError(f"degrees={degrees} must be two angles in -360 to 360, the smaller first")
        self.axis, self.degrees, self.prob = axis, (low, high), check_number("prob", prob, 0, 1)

    def transform(self, results: Results) -> Results:
        """Turn ``points`` and ``normals``."""
        if self.prob < 1 and np.random.uniform() >= self.prob:  # noqa: NPY002  mmengine seeds the global generator
            return results
        angle = np.radians(np.random.uniform(*self.degrees))  # noqa: NPY002
        cos, sin = np.cos(angle), np.sin(angle)
        turn = np.eye(3)
        second, third = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[self.axis]
        turn[[second, third], [second, third]] = cos
        turn[second, third], turn[third, second] = -sin, sin
        turned = {key: (results[key] @ turn.T).astype(np.float32) for key in VECTORS if key in results}
        return {**results, **turned}


@TRANSFORMS.register_module()
class FlipCloud(BaseTransform):
    """Mirror the cloud, and its normals, along x and along y, each or none of them.

    Args:
        prob: How often, of each, 0..1.
    """

    def __init__(self, prob: float = 0.5) -> None:
        self.prob = check_number("prob", prob, 0, 1)

    def transform(self, results: Results) -> Results:
        """Mirror ``points`` and ``normals``."""
        signs = np.where([*(np.random.uniform(size=2) < self.prob), False], -1, 1).astype(np.float32)  # noqa: NPY002
        return {**results, **{key: results[key] * signs for key in VECTORS if key in results}}


@TRANSFORMS.register_module()
class DropPoints(BaseTransform):
    """Now and then fewer points.

    Args:
        share: Of the points that are left out, 0 up to 1.
        prob: How often, 0..1.
    """

    def __init__(self, share: float = 0.2, prob: float = 0.2) -> None:
        self.share, self.prob = check_number("share", share, 0, below=1), check_number("prob", prob, 0, 1)

    def transform(self, results: Results) -> Results:
        """Choose rows, in their order."""
        if np.random.uniform() >= self.prob:  # noqa: NPY002
            return results
        count = len(results["points"])
        kept = np.sort(np.random.permutation(count)[: max(1, int(count * (1 - self.share)))])  # noqa: NPY002
        return {**results, **rows_of(results, kept)}


@TRANSFORMS.register_module()
class ScaleCloud(BaseTransform):
    """Scale the cloud.

    Args:
        scales: Least and greatest factor.
    """

    def __init__(self, scales: tuple[float, float] = (0.8, 1.2)) -> None:
        if not 0 < scales[0] <= scales[1]:
            raise ValueError(f"scales={scales} must be two positive factors, the smaller first")
        self.scales = scales

    def transform(self, results: Results) -> Results:
        """Scale ``points``."""
        factor = np.random.uniform(*self.scales)  # noqa: NPY002
        return {**results, "points": (results["points"] * factor).astype(np.float32)}


@TRANSFORMS.register_module()
class JitterCloud(BaseTransform):
    """Move every point a little.

    Args:
        sigma: Standard deviation along each axis, metres.
        clip: Furthest along each axis, metres.
    """

    def __init__(self, sigma: float = 0.005, clip: float = 0.02) -> None:
        if sigma < 0 or clip <= 0:
            raise ValueError(f"sigma={sigma} must be 0 or more and clip={clip} positive")
        self.sigma, self.clip = sigma, clip

    def transform(self, results: Results) -> Results:
        """Move ``points``."""
        noise = self.sigma * np.random.randn(*results["points"].shape)  # noqa: NPY002
        return {**results, "points": (results["points"] + noise.clip(-self.clip, self.clip)).astype(np.float32)}


@TRANSFORMS.register_module()
class DropColor(BaseTransform):
    """Now and then a cloud without colours: all 0, the middle of their range.

    Args:
        prob: How often, 0..1.
    """

    def __init__(self, prob: float = 0.2) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f"prob={prob} is out of range; allowed: 0 to 1")
        self.prob = prob

    def transform(self, results: Results) -> Results:
        """Set ``colors`` to 0, or leave them."""
        dropped = np.random.uniform() < self.prob  # noqa: NPY002
        return {**results, "colors": np.zeros_like(results["colors"])} if dropped else results


@TRANSFORMS.register_module()
class SwapAxes(BaseTransform):
    """Exchange two axes of positions and normals: S3DIS stands along z, Swin3D's weights with XYZ_RGB along y.

    Args:
        axes: The two axes.
    """

    def __init__(self, axes: tuple[int, int] = (1, 2)) -> None:
        self.order = [0, 1, 2]
        first, second = axes
        self.order[first], self.order[second] = second, first

    def transform(self, results: Results) -> Results:
        """Exchange the columns of ``points`` and ``normals``."""
        swapped = {key: results[key][:, self.order] for key in VECTORS if key in results}
        return {**results, **swapped}
