"""Augmentation of the colours of clouds, as Pointcept's recipes have it; colours lie in -1..1."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from numpy.typing import NDArray

from visionpe.checks import check_number

Results = dict[str, Any]


class _ColorTransform(BaseTransform):
    """Now and then other colours.

    Args:
        prob: How often, 0..1.
    """

    def __init__(self, prob: float) -> None:
        self.prob = check_number("prob", prob, 0, 1)

    def change(self, colors: NDArray[np.float32]) -> NDArray[np.floating]:
        """``(P, 3)`` to the same, perhaps beyond -1..1."""
        raise NotImplementedError

    def transform(self, results: Results) -> Results:
        """Change ``colors``, or leave them."""
        if np.random.uniform() >= self.prob:  # noqa: NPY002  mmengine seeds the global generator
            return results
        return {**results, "colors": self.change(results["colors"]).clip(-1, 1).astype(np.float32)}


@TRANSFORMS.register_module()
class ContrastColor(_ColorTransform):
    """Stretch each channel to its whole range, and mix that with the colours, at a share drawn from 0 to 1.

    Args:
        prob: How often, 0..1.
    """

    def __init__(self, prob: float = 0.2) -> None:
        super().__init__(prob)

    def change(self, colors: NDArray[np.float32]) -> NDArray[np.floating]:
        low, high = colors.min(0), colors.max(0)
        stretched = np.where(high > low, 2 * (colors - low) / np.maximum(high - low, 1e-12) - 1, colors)
        share = np.random.uniform()  # noqa: NPY002
        return (1 - share) * colors + share * stretched


@TRANSFORMS.register_module()
class ShiftColor(_ColorTransform):
    """Move all colours of a cloud alike.

    Args:
        prob: How often, 0..1.
        ratio: Furthest of each channel, as a share of its range.
    """

    def __init__(self, prob: float = 0.95, ratio: float = 0.05) -> None:
        super().__init__(prob)
        self.ratio = check_number("ratio", ratio, 0, 1)

    def change(self, colors: NDArray[np.float32]) -> NDArray[np.floating]:
        return colors + 2 * self.ratio * np.random.uniform(-1, 1, (1, 3))  # noqa: NPY002


@TRANSFORMS.register_module()
class JitterColor(_ColorTransform):
    """Move the colour of every point a little.

    Args:
        prob: How often, 0..1.
        sigma: Standard deviation of each channel, as a share of its range.
    """

    def __init__(self, prob: float = 0.95, sigma: float = 0.05) -> None:
        super().__init__(prob)
        self.sigma = check_number("sigma", sigma, 0, 1)

    def change(self, colors: NDArray[np.float32]) -> NDArray[np.floating]:
        return colors + 2 * self.sigma * np.random.randn(*colors.shape)  # noqa: NPY002
