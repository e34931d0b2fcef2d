"""What a model sees in the pictures that it is tested on, beside the ground truth."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from numpy.typing import NDArray

from visionpe.detection.data.classes import innermost
from visionpe.detection.predicting.drawing import Painter, caption, contact_sheet, write_image
from visionpe.detection.predicting.predictor import read_image

TRUTHS = ("gt_instances", "gt_sem_seg", "gt_panoptic_seg", "gt_label")


class ShowHook(Hook):
    """Draw every picture of a test into a folder: the ground truth, where it is loaded, beside the prediction.

    Args:
        folder: Where the drawings go, named after their pictures and the folders of these.
        scope: ``mmdet``, ``mmseg`` or ``mmpretrain``.
        score: Least score of a detection that is drawn, 0 to 1.
    """

    priority = "LOWEST"

    def __init__(self, folder: Path, scope: str, score: float = 0.3) -> None:
        self.folder, self.scope, self.score = folder, scope, score
        self.drawn = 0

    def before_test(self, runner: Runner) -> None:
        """Learn the names and colours of the classes."""
        self.dataset = innermost(runner.test_dataloader.dataset)
        self.painter = Painter(self.scope, dict(getattr(runner.test_dataloader.dataset, "metainfo", {})), self.score)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        """Draw a batch."""
        for index, sample in enumerate(outputs or ()):
            path = sample.get("img_path")
            picture = read_image(path) if path else _picture(data_batch["inputs"], index)
            sample = sample.cpu()
            cells = [("prediction", self.painter(picture, sample, legend=True))]
            if any(sample.get(name) is not None for name in TRUTHS):
                cells.insert(0, ("ground truth", self.painter(picture, sample, truth=True, legend=True)))
            sheet = contact_sheet([[caption(drawn, text) for text, drawn in cells]])
            write_image(self.folder / f"{self._name(path)}.png", sheet)
            self.drawn += 1

    def _name(self, path: str | None) -> str:
        """The path of a picture below its data set, in one word; pictures in memory are counted."""
        if not path:
            return f"{self.drawn * get_world_size() + get_rank():06d}"
        root = os.path.abspath(str(getattr(self.dataset, "data_root", None) or os.path.dirname(path)))
        below = os.path.relpath(os.path.abspath(path), root)
        below = os.path.basename(path) if below.startswith("..") else below
        return os.path.splitext(below)[0].replace(os.sep, "_")


def _picture(inputs: Any, index: int) -> NDArray[np.uint8]:
    """A picture as the model gets it, ``(C, height, width)`` of bytes, in BGR; of several views the first."""
    views = isinstance(inputs, (list, tuple)) and getattr(inputs[0], "ndim", 4) == 4  # of batches, stacked or listed
    inputs = inputs[0] if views else inputs
    pixels = np.ascontiguousarray(inputs[index].cpu().numpy().transpose(1, 2, 0)).astype(np.uint8)
    return cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR) if pixels.shape[2] == 1 else pixels  # type: ignore[return-value]
