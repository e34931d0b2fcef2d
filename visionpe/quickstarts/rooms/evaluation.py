"""A trained model on rooms that it never saw: the numbers, and a room to look at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from visionpe.detection.clouds.scan import from_config, run_model
from visionpe.quickstarts.dense.evaluation import measure as measured
from visionpe.quickstarts.trainings import Training
from visionpe.viewing.clouds.camera import View
from visionpe.viewing.clouds.page import write_page
from visionpe.viewing.clouds.picture import write_png
from visionpe.viewing.clouds.sources import room

# No room of this seed is trained on, validated with or tested.
SHOWN = 987_654
# Of the walls, so that one sees into the room.
TOP = 2.0


def measure(training: Training) -> dict[str, float]:
    """mIoU, mAcc and OA on the test rooms, and the IoU of each class, percent; kept beside the training."""
    metrics = measured(training, {})
    names = ["mIoU", "mAcc", "OA", *(name for name in metrics if name.startswith("IoU/"))]
    return {name.removeprefix("IoU/"): metrics[name] for name in names}


def draw(trainings: Mapping[str, Training], out: Path) -> list[Path]:
    """For each encoding a page and a picture of a room: colours, labels, predictions.

    Returns:
        The files.
    """
    files = []
    for encoding, training in trainings.items():
        entry = from_config(str(training.config), str(training.product), {})
        cloud = run_model(room(SHOWN), entry, torch.device("cpu")).cloud
        height = cloud.points[:, 2] - cloud.points[:, 2].min()
        cloud, view = cloud.chosen(height < TOP), View()
        page, picture = out / f"room_{encoding}.html", out / f"room_{encoding}.png"
        write_page(page, cloud, view, start="prediction")
        write_png(picture, cloud, view)
        files += [page, picture]
    return files
