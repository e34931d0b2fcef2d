"""mmseg's IoUMetric with the numbers of its table of classes among the metrics."""

from __future__ import annotations

import numpy as np
from mmengine.registry import METRICS
from mmseg.evaluation import IoUMetric


@METRICS.register_module()
class ClassIoUMetric(IoUMetric):
    """``IoUMetric`` that returns ``IoU/<class>`` too, in percent, for every class.

    A class that is neither in the data nor predicted has no IoU and is left out.
    """

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the metrics.

        Args:
            results: For each picture the areas of intersection, union, prediction and truth by class, pixels.

        Returns:
            ``aAcc mIoU mAcc`` and ``IoU/<class>``, percent.
        """
        metrics = dict(super().compute_metrics(results))
        if results:
            intersection, union = (sum(image[i] for image in results).double().numpy() for i in (0, 1))
            with np.errstate(invalid="ignore"):
                values = 100 * intersection / union
            names = self.dataset_meta["classes"]
            metrics |= {f"IoU/{name}": round(float(v), 2) for name, v in zip(names, values) if v == v}
        return metrics
