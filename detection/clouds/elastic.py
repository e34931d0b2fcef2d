"""Elastic distortion of clouds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from numpy.typing import NDArray

from visionpe.checks import check_number

Results = dict[str, Any]


def smooth_noise(points: NDArray[np.floating], spacing: float) -> NDArray[np.float64]:
    """A smooth random vector for every point: normal noise at the nodes of a grid, blurred twice over three nodes an
    axis, linear between them.

    Source: SparseConvNet's augmentation, as MinkowskiEngine's and Pointcept's recipes have it.

    Args:
        points: ``(P, 3)``.
        spacing: Of the nodes, in the unit of the points; one stands on their lowest corner.

    Returns:
        ``(P, 3)``.
    """
    low = points.min(0)
    nodes = ((points.max(0) - low) // spacing).astype(int) + 3
    noise = torch.from_numpy(np.random.randn(1, 3, *nodes))  # noqa: NPY002  mmengine seeds the global generator
    for _ in range(2):
        noise = F.avg_pool3d(noise, 3, stride=1, padding=1)  # beyond the grid there are zeros, which count
    places = (points.astype(np.float64) - low) / spacing + 1  # in nodes
    where = torch.from_numpy(2 * places / (nodes - 1) - 1).flip(-1)  # -1..1, the last axis first
    return F.grid_sample(noise, where[None, None, None], align_corners=True)[0, :, 0, 0].T.numpy()


@TRANSFORMS.register_module()
class ElasticCloud(BaseTransform):
    """Bend the cloud by smooth noise; normals stay as they are, as published.

    Args:
        steps: Spacing of the nodes and size of the noise, both in metres, of one distortion after the other.
        prob: How often, 0..1.
    """

    def __init__(self, steps: Sequence[tuple[float, float]] = ((0.2, 0.4), (0.8, 1.6)), prob: float = 0.95) -> None:
        self.steps = [(check_number("steps", s, above=0), check_number("steps", m, 0)) for s, m in steps]
        self.prob = check_number("prob", prob, 0, 1)

    def transform(self, results: Results) -> Results:
        """Bend ``points``, or leave them."""
        if np.random.uniform() >= self.prob:  # noqa: NPY002
            return results
        points = results["points"]
        for spacing, size in self.steps:
            points = points + size * smooth_noise(points, spacing)
        return {**results, "points": points.astype(np.float32)}
