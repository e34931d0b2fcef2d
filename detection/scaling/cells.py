"""Predictions of segmentors and detectors as a classifier of cells, for what chooses policies by predictions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CELLS = 16  # along each side of a picture
SMALL = 1e-4  # of a probability


def _of_segmentation(logits: Tensor) -> Tensor:
    """``(C, H, W)`` to probabilities ``(CELLS^2, C)``, of two classes where one map stands for both."""
    p = logits.float()
    p = torch.cat([1 - p.sigmoid(), p.sigmoid()]) if len(p) == 1 else p.softmax(0)
    return F.adaptive_avg_pool2d(p[None], CELLS)[0].flatten(1).T


def _of_detection(instances: Any, size: tuple[int, int], classes: int) -> Tensor:
    """Of each cell the best score of every class among boxes with their centre in it, and of nothing: the rest."""
    boxes, scores, labels = (instances[key].float().cpu() for key in ("bboxes", "scores", "labels"))
    found = torch.zeros(CELLS * CELLS, classes + 1)
    height, width = size
    x, y = ((boxes[:, i] + boxes[:, i + 2]) / 2 for i in (0, 1))
    column, row = ((z / side * CELLS).long().clamp(0, CELLS - 1) for z, side in ((x, width), (y, height)))
    place = (row * CELLS + column) * (classes + 1) + labels.long()
    found.view(-1).scatter_reduce_(0, place, scores, "amax")
    found[:, -1] = 1 - found[:, :-1].amax(1)
    return found / found.sum(1, keepdim=True).clamp(min=SMALL)


def cell_logits(sample: Any, classes: int) -> Tensor:
    """Logits ``(CELLS^2, classes)`` of one picture; of a detector with one class more, for nothing.

    Args:
        sample: What a model of mmseg or mmdet predicts, with ``seg_logits`` or ``pred_instances``.
        classes: Of a detector.
    """
    if "seg_logits" in sample:
        p = _of_segmentation(sample.seg_logits.data.cpu())
    else:
        p = _of_detection(sample.pred_instances, sample.ori_shape, classes)
    return p.clamp(min=SMALL).log()
