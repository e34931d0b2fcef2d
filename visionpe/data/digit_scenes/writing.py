"""Digit scenes: real handwritten digits on cluttered canvases, written as COCO json and as ADE20K directories.

The same dataset classes, pipelines and metrics that run on COCO and ADE20K run on them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from visionpe.data.digit_scenes.drawing import SPLITS, Scene, SceneSettings, scenes
from visionpe.data.digits import CLASSES
from visionpe.utils.files import write_atomic
from visionpe.utils.locks import locked

__all__ = ["Scene", "SceneSettings", "scenes", "write_scenes", "written"]

MARKER = "scenes.json"  # the settings, written last: a folder that has it is whole
ADE = {"train": "training", "val": "validation"}


def _write(path: Path, suffix: str, image: NDArray[np.uint8], *options: int) -> None:
    """Encode an image into ``path``, whole or not at all; a file that is there is kept."""
    if not path.exists():
        write_atomic(path, cv2.imencode(suffix, image, options)[1].tobytes(), durable=False)


def _annotation(mask: NDArray[np.bool_], label: int, number: int, image: int) -> dict[str, Any]:
    code = rle.encode(np.asfortranarray(mask, np.uint8))
    return {
        "id": number,
        "image_id": image,
        "category_id": label + 1,
        "bbox": rle.toBbox(code).tolist(),
        "area": float(mask.sum()),
        "iscrowd": 0,
        "segmentation": {"size": code["size"], "counts": code["counts"].decode()},
    }


def _write_split(folder: Path, split: str, settings: SceneSettings, step: Callable[[], None]) -> None:
    pictures, ade = folder / f"coco/{split}2017", ADE[split]
    images, maps = folder / f"ade/images/{ade}", folder / f"ade/annotations/{ade}"
    for path in (pictures, images, maps, folder / "coco/annotations"):
        path.mkdir(parents=True, exist_ok=True)
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, scene in enumerate(scenes(split, settings), start=1):
        name, ade_name = f"{number:012d}.jpg", f"ADE_{split}_{number:08d}"
        for file in (pictures / name, images / f"{ade_name}.jpg"):
            _write(file, ".jpg", scene.image, cv2.IMWRITE_JPEG_QUALITY, 95)
        # As in ADE20K, 0 means unlabelled, so the classes start at 1.
        classes = np.ones(scene.image.shape[:2], np.uint8)
        for mask, label in zip(scene.masks, scene.labels):
            classes[mask] = label + 2
            annotations.append(_annotation(mask, label, len(annotations) + 1, number))
        _write(maps / f"{ade_name}.png", ".png", classes)
        height, width = scene.image.shape[:2]
        listed.append({"id": number, "file_name": name, "height": height, "width": width})
        step()
    content = {
        "info": {"description": "Handwritten digits (MNIST) on cluttered canvases", "version": "1"},
        "licenses": [],
        "images": listed,
        "annotations": annotations,
        "categories": [{"id": i + 1, "name": name, "supercategory": "digit"} for i, name in enumerate(CLASSES)],
    }
    (folder / f"coco/annotations/instances_{split}2017.json").write_text(json.dumps(content))


def written(out: str | Path) -> SceneSettings | None:
    """The settings of the scenes in ``out``; None if there are none, or not all."""
    try:
        content = json.loads(Path(out, MARKER).read_text())
    except FileNotFoundError:
        return None
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in content.items()}
    return SceneSettings(**values)


def write_scenes(
    out: str | Path, settings: SceneSettings | None = None, step: Callable[[], None] = lambda: None
) -> bool:
    """Write scenes into the folder ``out``: ``coco/`` and ``ade/``, laid out as COCO 2017 and ADE20K are.

    Everything is written beside ``out`` and renamed at the end. Broken off, the next call goes on from there.

    Args:
        out: The folder.
        settings: What the scenes look like; the defaults by default.
        step: Called after each scene.

    Returns:
        Whether anything was written: False if ``out`` already holds just these scenes.

    Raises:
        FileExistsError: If ``out`` holds something else.
        visionpe.utils.errors.InputError: If another process is writing there.
    """
    out, settings = Path(out), settings or SceneSettings()
    if written(out) == settings:
        return False
    with locked(out.resolve().parent, f"writing of {out.name}"):
        return _write_scenes(out, settings, step)


def _write_scenes(out: Path, settings: SceneSettings, step: Callable[[], None]) -> bool:
    there = written(out)
    if there == settings:
        return False
    if there is not None:
        raise FileExistsError(
            f"{str(out)!r} holds scenes of other settings: {there}; remove it or choose another folder"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{str(out)!r} exists and holds no digit scenes; choose another folder")
    partial, note = out.with_name(f".{out.name}.partial"), json.dumps(asdict(settings), indent=2) + "\n"
    begun = partial / "settings.json"
    if partial.exists() and not (begun.is_file() and begun.read_text() == note):
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    begun.write_text(note)
    for split in SPLITS:
        _write_split(partial, split, settings, step)
    os.replace(begun, partial / MARKER)
    os.replace(partial, out)
    return True
