"""Augmentation of clouds, as Swin3D's recipes have it. Random numbers are numpy's global ones, which mmengine seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS

Results = dict[str, Any]

VECTORS: tuple[str, ...] = ("points", "normals")


@TRANSFORMS.register_module()
class RotateCloud(BaseTransform):
    """Turn the cloud, and its normals, about z by any angle."""

    def transform(self, results: Results) -> Results:
        """Turn ``points`` and ``normals``."""
        angle = np.random.uniform(0, 2 * np.pi)  # noqa: NPY002  mmengine seeds the global generator
        cos, sin = np.cos(angle), np.sin(angle)
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        turned = {key: (results[key] @ turn.T).astype(np.float32) for key in VECTORS if key in results}
        return {**results, **turned}


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
