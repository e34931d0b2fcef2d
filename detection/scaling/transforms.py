"""The transform behind the ``downscale`` control; registered for every scope when imported."""

from __future__ import annotations

from typing import Any

import cv2
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS


@TRANSFORMS.register_module()
class ResizeBack(BaseTransform):
    """Resize a picture that was resized by a factor back by the same factor; it keeps what that size could show.

    Boxes predicted on the result are still mapped to the original picture: ``scale_factor`` takes both steps.

    Args:
        factor: What height and width had been multiplied by, above 0.

    Required and modified keys: ``img`` (height, width, channels), ``img_shape``, ``scale_factor`` (width, height).
    Labels are left as they are: the step stands behind the last ``Resize``, before labels are loaded.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resize one picture."""
        image = results["img"]
        before = image.shape[:2]
        height, width = (max(1, round(side / self.factor)) for side in before)
        # Areas are averaged on the way down: the control should not suffer from aliasing.
        how = cv2.INTER_AREA if self.factor > 1 else cv2.INTER_LINEAR
        results["img"] = image if (height, width) == before else cv2.resize(image, (width, height), interpolation=how)
        wide, high = results.get("scale_factor", (1.0, 1.0))
        results["scale_factor"] = (wide * width / before[1], high * height / before[0])
        results["img_shape"] = (height, width)
        return results
