"""What counts as accuracy: the share of images that are right, or the mean share over classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from visionpe.scaling.options import Metric
from visionpe.scaling.statistics import unpack, unpack_classes

NAMES: dict[Metric, str] = {"top1": "top-1", "balanced": "balanced"}
Row = Mapping[str, Any]


def class_weights(labels: np.ndarray) -> np.ndarray:
    """Weights ``(n,)`` of images, one in the mean, by which every class that occurs counts alike.

    Args:
        labels: ``(n,)``, whole numbers.
    """
    classes, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return (len(labels) / (len(classes) * counts))[inverse]


def outcomes(row: Row, metric: Metric) -> np.ndarray:
    """What each image adds ``(n,)``: the mean over images is the metric.

    Args:
        row: From the sweep, with its packed ``correct`` and ``labels``.
        metric: ``top1``, or ``balanced``: the mean over classes of the share that is right, which counts an image of
            a rare class more.
    """
    correct = unpack(row["correct"]).astype(np.float64)
    return correct * class_weights(unpack_classes(row["labels"])) if metric == "balanced" else correct


def metric_of(line: Row) -> Metric:
    """By which metric a line is read."""
    return line.get("metric", "top1")


def score(line: Row) -> float:
    """Of the metric by which a line is read, percent."""
    return line[metric_of(line)]


def interval(line: Row) -> tuple[float, float]:
    """Of :func:`score`: 95%, percent."""
    return line[f"{metric_of(line)}_low"], line[f"{metric_of(line)}_high"]


def paper_of(line: Row) -> float | None:
    """What a paper states, which is top-1 always: None beside another metric."""
    return line.get("paper") if metric_of(line) == "top1" else None


def name_of(lines: Sequence[Row]) -> str:
    """What the metric of these lines is called."""
    return NAMES[metric_of(lines[0])] if lines else NAMES["top1"]
