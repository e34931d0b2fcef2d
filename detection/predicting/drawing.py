"""Predictions and ground truth of mmdet, mmseg and mmpretrain drawn over pictures of any size."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from visionpe.detection.predicting.lettering import Colour, draw_labels, with_legend
from visionpe.utils.files import write_atomic

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
    for name in ("pred_sem_seg", "gt_sem_seg", "pred_panoptic_seg", "gt_panoptic_seg"):
        maps = sample.get(name)
        if maps is not None:
            # PixelData insists on one size for all its fields.
            data = maps.sem_seg if "sem_seg" in maps else maps.data
            setattr(sample, name, type(maps)(data=_larger(data, factor)))
    return sample


SCOPES = ("mmdet", "mmseg", "mmpretrain")
INSTANCE_OFFSET = 1000  # of panoptic maps: label + 1000 * number
MOST = 24  # classes of a legend


def class_colours(palette: Any, count: int) -> list[Colour]:
    """A colour a class: those of a palette, and others that differ as much as they can where there is none.

    Args:
        palette: RGB triples, or None.
        count: Classes.
    """
    given = [tuple(int(value) for value in each) for each in palette] if isinstance(palette, (list, tuple)) else []
    turns = ((0.61803398875 * i) % 1 for i in range(count))  # the golden ratio spreads hues
    own = [colorsys.hsv_to_rgb(turn, 0.85 - 0.25 * (i % 2), 1 - 0.22 * (i // 2 % 2)) for i, turn in enumerate(turns)]
    return [(*each,) for each in given[:count]] + [
        (round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in own[len(given) :]
    ]


def _array(value: Any) -> NDArray:
    """On the CPU, of tensors, boxes and masks."""
    value = getattr(value, "tensor", value)
    return value.to_ndarray() if hasattr(value, "to_ndarray") else torch.as_tensor(value).cpu().numpy()


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
        if scope not in SCOPES:
            raise ValueError(f"scope={scope!r} is unknown; allowed: {', '.join(SCOPES)}")
        self.scope, self.score = scope, score
        self.classes, self.palette = meta.get("classes"), meta.get("palette")

    def _name(self, label: int) -> str:
        known = self.classes is not None and label < len(self.classes)
        return str(self.classes[label]) if known else f"class {label}"  # type: ignore[index]

    def _colours(self, labels: NDArray) -> list[Colour]:
        return class_colours(self.palette, max(len(self.classes or ()), int(labels.max(initial=0)) + 1))

    def __call__(
        self, image: NDArray[np.uint8], sample: Any, *, truth: bool = False, legend: bool = False
    ) -> NDArray[np.uint8]:
        """Draw on a picture; a small one is enlarged.

        Args:
            image: ``(height, width, 3)``, BGR.
            sample: The data sample, in its pixels.
            truth: Draw the ground truth instead of the prediction.
            legend: Name the colours of a segmentation in a strip below.

        Returns:
            ``(factor * height, factor * width, 3)``, BGR; higher by a strip below with a legend, or the classes of a
            whole picture.
        """
        factor = enlargement(image)
        size = (image.shape[1] * factor, image.shape[0] * factor)
        picture: Any = np.ascontiguousarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)[..., ::-1])  # RGB
        kind = "gt" if truth else "pred"
        if self.scope == "mmpretrain":
            return with_legend(picture, self._guesses(sample, truth), lines=True)[..., ::-1].copy()
        larger = enlarged(sample, factor)
        entries: list[tuple[Colour | None, str]] = []
        for name in (f"{kind}_panoptic_seg", f"{kind}_sem_seg"):
            if larger.get(name) is not None:
                picture, entries = self._map(picture, larger.get(name), panoptic="panoptic" in name)
                break
        if larger.get(f"{kind}_instances") is not None:
            picture = self._instances(picture, larger.get(f"{kind}_instances"))
        return (with_legend(picture, entries) if legend else picture)[..., ::-1].copy()

    def _guesses(self, sample: Any, truth: bool) -> list[tuple[Colour | None, str]]:
        """The most likely classes of a whole picture, or the true ones."""
        if truth:
            return [(None, self._name(int(label))) for label in _array(sample.gt_label).reshape(-1)[:5]]
        top = sample.pred_score.topk(min(5, len(sample.pred_score)))
        return [(None, f"{self._name(int(i))} {float(p):.2f}") for p, i in zip(top.values, top.indices)]

    def _map(
        self, picture: NDArray[np.uint8], given: Any, *, panoptic: bool
    ) -> tuple[NDArray[np.uint8], list[tuple[Colour | None, str]]]:
        """A map of labels over the picture, and what its colours mean, the most frequent first."""
        cells = _array(given.sem_seg if "sem_seg" in given else given.data)
        cells = cells.reshape(cells.shape[-2:]).astype(np.int64)
        labels = cells % INSTANCE_OFFSET if panoptic else cells
        known = labels < max(len(self.classes or ()), 1) if self.classes else labels != 255
        colours = np.array(self._colours(labels[known]), np.uint8)
        over = np.where(known[..., None], colours[np.where(known, labels, 0)], picture)
        picture = np.round(0.4 * picture + 0.6 * over).astype(np.uint8)
        if panoptic:  # parts of one class are told apart by their edges
            edges = np.zeros(cells.shape, bool)
            edges[1:] |= cells[1:] != cells[:-1]
            edges[:, 1:] |= cells[:, 1:] != cells[:, :-1]
            picture[edges] = 255
        found, counts = np.unique(labels[known], return_counts=True)
        order = np.argsort(-counts)
        shares = [(int(found[i]), 100 * counts[i] / labels.size) for i in order]
        entries: list[tuple[Colour | None, str]] = [
            (tuple(map(int, colours[label])), f"{self._name(label)} {share:.1f}%") for label, share in shares[:MOST]
        ]
        return picture, entries + ([(None, f"and {len(shares) - MOST} more")] if len(shares) > MOST else [])

    def _instances(self, picture: NDArray[np.uint8], found: Any) -> NDArray[np.uint8]:
        """Masks, boxes and labels, those of the highest score on top."""
        scores = _array(found.scores) if "scores" in found else None
        labels = _array(found.labels).astype(int)
        kept = np.arange(len(labels)) if scores is None else np.flatnonzero(scores >= self.score)
        if scores is not None:
            kept = kept[np.argsort(-scores[kept], kind="stable")]
        colours, width = self._colours(labels), max(2, round(max(picture.shape[:2]) / 500))
        masks = _array(found.masks).astype(bool) if "masks" in found else None
        boxes = _array(found.bboxes) if "bboxes" in found else np.zeros((len(labels), 4))
        spots = []
        for i in kept[::-1]:
            colour, box = colours[labels[i]], boxes[i, :4]
            if masks is not None:
                where = masks[i]
                picture[where] = np.round(0.5 * picture[where] + 0.5 * np.array(colour)).astype(np.uint8)
                outlines = cv2.findContours(where.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
                cv2.drawContours(picture, outlines, -1, colour, 1)
                if not box.any() and where.any():  # of a detector without boxes
                    rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
                    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            left, top, right, bottom = (int(value) for value in np.round(box))
            cv2.rectangle(picture, (left, top), (right, bottom), colour, width, cv2.LINE_AA)
            spots.append((left, top, right, bottom))
        texts = [self._name(int(labels[i])) + ("" if scores is None else f" {scores[i]:.2f}") for i in kept]
        return draw_labels(picture, spots[::-1], texts, [colours[labels[i]] for i in kept])


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
