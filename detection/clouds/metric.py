"""mIoU, mAcc and OA of clouds, and the counts they come from, which add up over folds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import METRICS

from visionpe.detection.running.metrics import ClassIoUMetric
from visionpe.utils.files import write_atomic

COUNTS = ("intersection", "union", "predicted", "truth")


@METRICS.register_module()
class CloudMetric(ClassIoUMetric):
    """mmseg's ``IoUMetric`` over the points of a whole split: ``mIoU``, ``mAcc``, ``OA`` and ``IoU/<class>``, percent.

    Args:
        ignore_index: Label that does not count.
        counts: JSON file for the points of each class, for :func:`fold_metrics`.
        **kwargs: Further keywords of ``IoUMetric``.
    """

    def __init__(self, ignore_index: int = 255, counts: str | None = None, **kwargs: Any) -> None:
        super().__init__(ignore_index=ignore_index, **kwargs)
        self.counts = counts

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the metrics.

        Args:
            results: For each cloud the points of intersection, union, prediction and truth by class.
        """
        # float32 loses count at 16.7 million points.
        sums = [sum(cloud[i].double() for cloud in results) for i in range(len(COUNTS))]
        metrics = super().compute_metrics([sums])
        metrics["OA"] = metrics.pop("aAcc")
        if self.counts:
            rows = {name: [int(n) for n in values] for name, values in zip(COUNTS, sums)}
            content = {"classes": list(self.dataset_meta["classes"]), **rows}
            write_atomic(self.counts, json.dumps(content, indent=2) + "\n")
        return metrics


def fold_metrics(files: Sequence[str | Path]) -> dict[str, float]:
    """One result over several folds: their counts are added before anything is divided.

    Args:
        files: What ``CloudMetric(counts=...)`` wrote, one a fold.

    Returns:
        ``mIoU mAcc OA`` and ``IoU/<class>``, percent.

    Raises:
        ValueError: If there is no file, or the folds have different classes.
    """
    if not files:
        raise ValueError("files is empty; give the counts of at least one fold")
    folds = [json.loads(Path(file).read_text()) for file in files]
    metric = CloudMetric()
    metric.dataset_meta = {"classes": folds[0]["classes"]}
    for file, fold in zip(files, folds):
        if fold["classes"] != folds[0]["classes"]:
            raise ValueError(f"{file} has classes {fold['classes']}, {files[0]} has {folds[0]['classes']}")
    return metric.compute_metrics([[torch.tensor(fold[name]) for name in COUNTS] for fold in folds])
