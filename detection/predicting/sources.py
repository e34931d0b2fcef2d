"""The pictures that a user names: files, folders of them, folders of classes, and files of COCO annotations."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement, InstanceData

from visionpe.detection.data import coco
from visionpe.utils.errors import InputError
from visionpe.utils.ordering import natural_key

# Of files in folders; a file that is named by itself is read whatever its name.
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


@dataclass(frozen=True)
class Source:
    """A picture.

    Args:
        path: The file.
        name: Of what is drawn of it, without an ending; a path below the folder that was named.
        folder: The sub-folder that it stands in directly: its class, where that is one.
        objects: Names of classes with ``bbox`` and ``segmentation`` of COCO; None where there are no annotations.
        size: Height and width as annotations tell them.
    """

    path: Path
    name: str
    folder: str | None = None
    objects: Sequence[tuple[str, Mapping[str, Any]]] | None = None
    size: tuple[int, int] | None = None

    def truth(self, scope: str, classes: Sequence[str] | None, size: tuple[int, int]) -> Any:
        """The ground truth as a data sample; None where it is not known.

        Args:
            scope: ``mmdet``, ``mmseg`` or ``mmpretrain``.
            classes: Of the model, in the order of labels.
            size: Height and width of the picture.

        Raises:
            InputError: If annotations are of a picture of another size.
        """
        names = list(classes or ())
        if scope == "mmpretrain" and self.folder in names:
            from mmpretrain.structures import DataSample

            return DataSample().set_gt_label(names.index(self.folder))
        if scope != "mmdet" or self.objects is None:
            return None
        if self.size not in (None, size):
            raise InputError(
                f"{self.path}: is {size[0]} x {size[1]} (height x width), its annotation is of {self.size[0]} x "
                f"{self.size[1]}; give --image-root DIR if it is another picture"
            )
        known = [(names.index(name), each) for name, each in self.objects if name in names]
        boxes = torch.tensor([each["bbox"] for _, each in known], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        found = InstanceData(bboxes=boxes, labels=torch.tensor([label for label, _ in known], dtype=torch.long))
        if known and all(each.get("segmentation") for _, each in known):
            found.masks = torch.from_numpy(np.stack([_mask(each["segmentation"], size) for _, each in known]))
        return BaseDataElement(gt_instances=found)


def _mask(given: Any, size: tuple[int, int]) -> np.ndarray:
    """Polygons, or a run-length code, as ``(height, width)``."""
    from pycocotools import mask

    if isinstance(given, list):
        code = mask.merge(mask.frPyObjects(given, *size))
    else:
        code = mask.frPyObjects(given, *size) if isinstance(given["counts"], list) else given
    return mask.decode(code).astype(bool)


def _in_folder(folder: Path) -> Iterator[Source]:
    files = [file for file in folder.rglob("*") if file.suffix.lower() in ENDINGS and not file.name.startswith(".")]
    for file in sorted(files, key=lambda file: natural_key(file.relative_to(folder).as_posix())):
        below = file.relative_to(folder)
        yield Source(file, below.with_suffix("").as_posix(), below.parent.name or folder.resolve().name)


def _root_of(file: Path, first: str, given: Path | None) -> Path:
    """The folder below which the pictures of a file of annotations stand."""
    if given is not None:
        if not (given / first).is_file():
            raise InputError(f"--image-root {given}: there is no {first!r} in it, which {file} names")
        return given
    above = file.resolve().parent.parent
    around = [file.parent, above, *sorted(child for child in above.iterdir() if child.is_dir())]
    # instances_val2017.json is of val2017/, though train2017/ may have pictures of the same names.
    around.sort(key=lambda folder: folder.name not in file.stem)
    root = next((folder for folder in around if (folder / first).is_file()), None)
    if root is None:
        raise InputError(f"{file}: {first!r} is in no folder beside it; give --image-root DIR")
    return root


def _in_annotations(file: Path, image_root: Path | None) -> Iterator[Source]:
    coco.check_file(file)
    content = json.loads(file.read_bytes())
    names = {each["id"]: str(each["name"]) for each in content["categories"]}
    objects: dict[Any, list] = {image["id"]: [] for image in content["images"]}
    for each in content.get("annotations", ()):
        if not each.get("iscrowd"):
            objects[each["image_id"]].append((names[each["category_id"]], each))
    if not content["images"]:
        return
    root = _root_of(file, content["images"][0]["file_name"], image_root)
    for image in content["images"]:
        name = image["file_name"]
        stated = objects[image["id"]] if "annotations" in content else None
        yield Source(
            root / name, Path(name).with_suffix("").as_posix(), None, stated, (image["height"], image["width"])
        )


def collect(images: Sequence[str | Path], image_root: str | Path | None = None) -> list[Source]:
    """All pictures that are named, in their order.

    Args:
        images: Files of pictures; folders, with all below them; files of COCO annotations (``.json``).
        image_root: Where the pictures of annotations stand; found beside them by default.

    Raises:
        InputError: If a folder holds no pictures, annotations are wrong, or their pictures are not found.
    """
    root = None if image_root is None else Path(image_root).expanduser()
    found: list[Source] = []
    for image in images:
        path = Path(image).expanduser()
        if path.is_dir():
            inside = list(_in_folder(path))
            if not inside:
                raise InputError(f"{path}: holds no pictures ({' '.join(ENDINGS)})")
            found += inside
        elif path.suffix.lower() == ".json" and path.is_file():
            found += _in_annotations(path, root)
        else:
            found.append(Source(path, path.stem))
    return found
