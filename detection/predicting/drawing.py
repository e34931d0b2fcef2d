"""Predictions and ground truth drawn over pictures by the visualisers of mmdet, mmseg and mmpretrain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.registry import VISUALIZERS
from mmengine.visualization import Visualizer
from numpy.typing import NDArray

from visionpe.utils.files import write_atomic

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "mmdet": ("mmdet.DetLocalVisualizer", {"line_width": 2, "alpha": 0.5}),
    "mmseg": ("mmseg.SegLocalVisualizer", {"alpha": 0.6}),
    "mmpretrain": ("mmpretrain.UniversalVisualizer", {}),
}
READABLE = 512  # pixels of the longer side below which lines and letters hide the picture


def enlargement(image: NDArray[np.uint8]) -> int:
    """The whole factor by which a small picture is enlarged before anything is drawn on it."""
    return max(-(-READABLE // max(image.shape[:2])), 1)


def _larger(array: Any, factor: int) -> Any:
    """Repeat the pixels of ``(..., height, width)``."""
    tensor = torch.as_tensor(array)
    return tensor.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def enlarged(sample: Any, factor: int) -> Any:
    """A copy of a data sample for a picture ``factor`` times as large: boxes, masks and maps."""
    sample = sample.clone()
    for name in ("pred_instances", "gt_instances"):
        instances = sample.get(name)
        if instances is None:
            continue
        instances = instances.clone()  # a clone of the sample shares its parts
        if "masks" in instances:
            masks = instances.masks
            masks = _larger(masks.to_ndarray() if hasattr(masks, "to_ndarray") else masks, factor)
            instances.masks = masks.bool()
        if "bboxes" in instances:
            boxes = instances.bboxes
            instances.bboxes = getattr(boxes, "tensor", boxes) * factor
        setattr(sample, name, instances)
    for name in ("pred_sem_seg", "gt_sem_seg"):
        maps = sample.get(name)
        if maps is not None:
            # PixelData insists on one size for all its fields.
            setattr(sample, name, type(maps)(data=_larger(maps.data, factor)))
    return sample


class Painter:
    """Draws data samples.

    Args:
        scope: ``mmdet``, ``mmseg`` or ``mmpretrain``.
        meta: ``classes`` and, if known, ``palette``.
        score: Least score of a box or mask, 0 to 1.

    Raises:
        ValueError: If ``scope`` is unknown.
    """

    def __init__(self, scope: str, meta: Mapping[str, Any], score: float = 0.3) -> None:
        if scope not in KINDS:
            raise ValueError(f"scope={scope!r} is unknown; allowed: {', '.join(KINDS)}")
        self.scope, self.score = scope, score
        name, options = KINDS[scope]
        # Built, visualisers are shared by name; this one has classes of its own.
        self.visualizer: Visualizer = VISUALIZERS.get(name)(**options)
        palette = meta.get("palette") or ("random" if scope == "mmdet" else None)
        self.visualizer.dataset_meta = {"classes": meta.get("classes"), "palette": palette}

    def __call__(self, image: NDArray[np.uint8], sample: Any, *, truth: bool = False) -> NDArray[np.uint8]:
        """Draw on a picture; a small one is enlarged.

        Args:
            image: ``(height, width, 3)``, BGR.
            sample: The data sample, in its pixels.
            truth: Draw the ground truth instead of the prediction.

        Returns:
            ``(factor * height, factor * width, 3)``, BGR.
        """
        factor = enlargement(image)
        size = (image.shape[1] * factor, image.shape[0] * factor)
        picture = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)[..., ::-1]
        picture = np.ascontiguousarray(picture)  # the visualisers speak RGB
        if self.scope == "mmpretrain":
            drawn = self.visualizer.visualize_cls(picture, sample, draw_gt=truth, draw_pred=not truth)
            return np.ascontiguousarray(drawn[..., ::-1])
        options: dict[str, Any] = {"draw_gt": truth, "draw_pred": not truth}
        options |= {"pred_score_thr": self.score} if self.scope == "mmdet" else {"with_labels": False}
        self.visualizer.set_image(picture)
        self.visualizer.add_datasample("", picture, enlarged(sample, factor), **options)
        return np.ascontiguousarray(self.visualizer.get_image()[..., ::-1])


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write a BGR image under its suffix's format, whole or not at all.

    Raises:
        ValueError: If OpenCV knows no such format.
    """
    if not cv2.haveImageWriter(path.name):
        raise ValueError(f"{str(path)!r}: no image format; allowed: .png, .jpg and others of OpenCV")
    write_atomic(path, cv2.imencode(path.suffix, image)[1].tobytes())


def caption(image: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """The image under a strip with ``text``."""
    strip = np.full((30, image.shape[1], 3), 255, np.uint8)
    cv2.putText(strip, text, (6, 21), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([strip, image])


def contact_sheet(rows: Sequence[Sequence[NDArray[np.uint8]]], gap: int = 6) -> NDArray[np.uint8]:
    """Pictures in a grid on white.

    Args:
        rows: Rows of ``(height, width, 3)``, BGR; sizes may differ.
        gap: Pixels between two.

    Returns:
        One picture.
    """
    height = max(image.shape[0] for row in rows for image in row)
    width = max(image.shape[1] for row in rows for image in row)
    columns = max(len(row) for row in rows)
    sheet = np.full((len(rows) * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            top, left = gap + i * (height + gap), gap + j * (width + gap)
            sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet
