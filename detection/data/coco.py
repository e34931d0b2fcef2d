"""Annotations in COCO's format: every field that is read is there, every id is known, labels go by name."""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from visionpe.utils.errors import InputError, first_line

# Files beyond this are checked as they are read, before training starts all the same: reading them takes long.
LARGE = 64 << 20


def _fail(file: str | Path, text: str) -> InputError:
    return InputError(f"annotations {str(file)!r}: {text}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _list(content: Any, key: str, file: str | Path) -> list:
    found = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(found, list):
        given = f"is {type(found).__name__}" if isinstance(content, Mapping) and key in content else "is missing"
        raise _fail(file, f"{key} {given}; expected a list, as COCO has it")
    return found


def _records(records: list, what: str, needed: Iterable[str], file: str | Path) -> None:
    """Every record is an object with the needed fields."""
    fields = frozenset(needed)
    for index, record in enumerate(records):
        if not (isinstance(record, dict) and fields <= record.keys()):
            lacking = sorted(fields - record.keys()) if isinstance(record, dict) else []
            name = f"{what}[{index}]" + (
                f" (id {record['id']!r})" if isinstance(record, dict) and "id" in record else ""
            )
            raise _fail(file, f"{name} " + (f"has no {lacking[0]}" if lacking else "is no object"))


def _ids(records: list[dict], what: str, key: str, file: str | Path) -> set:
    """The values of a key, each once."""
    found: set = set()
    for index, record in enumerate(records):
        value = record[key]
        if not isinstance(value, (int, str)) or value in found:
            raise _fail(
                file, f"{what}[{index}]: {key} {value!r} " + ("is there twice" if value in found else "is no id")
            )
        found.add(value)
    return found


def check_annotations(content: Any, file: str | Path, *, masks: bool = False, crowds: bool = False) -> None:
    """Refuse annotations on which mmdet would fail, or which it would leave out without a word.

    Args:
        content: Of the JSON file.
        file: For messages.
        masks: Whether every annotation must have a ``segmentation``.
        crowds: Whether every annotation must say ``iscrowd``, as COCO's evaluation asks.

    Raises:
        InputError: Names the file, the first record that is wrong and its field.
    """
    images, categories = _list(content, "images", file), _list(content, "categories", file)
    # Test sets whose annotations are kept back have none.
    annotations = _list(content, "annotations", file) if "annotations" in content else []
    _records(images, "images", ("id", "file_name", "height", "width"), file)
    _records(categories, "categories", ("id", "name"), file)
    needed = ["id", "image_id", "category_id", "bbox", "area"]
    _records(annotations, "annotations", [*needed, *["segmentation"] * masks, *["iscrowd"] * crowds], file)
    known_images, known = _ids(images, "images", "id", file), _ids(categories, "categories", "id", file)
    _ids(categories, "categories", "name", file)
    _ids(annotations, "annotations", "id", file)
    for index, image in enumerate(images):
        if not (isinstance(image["file_name"], str) and image["file_name"]):
            raise _fail(file, f"images[{index}]: file_name {image['file_name']!r} is no name of a file")
        if not (
            _is_number(image["height"]) and _is_number(image["width"]) and min(image["height"], image["width"]) > 0
        ):
            size = f"height {image['height']!r}, width {image['width']!r}"
            raise _fail(file, f"images[{index}]: {size}; allowed: pixels above 0")
    for index, each in enumerate(annotations):
        box = each["bbox"]
        if each["image_id"] not in known_images:
            raise _fail(file, f"annotations[{index}]: image_id {each['image_id']!r} is none of {len(images)} images")
        if each["category_id"] not in known:
            ids = ", ".join(map(str, sorted(known, key=str)[:10])) + (", ..." if len(known) > 10 else "")
            raise _fail(
                file, f"annotations[{index}]: category_id {each['category_id']!r} is no category; allowed: {ids}"
            )
        if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
            raise _fail(file, f"annotations[{index}]: bbox {box!r}; allowed: four numbers, x y width height")
        if not _is_number(each["area"]):
            raise _fail(file, f"annotations[{index}]: area {each['area']!r} is no number")


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        empty = "" if file.stat().st_size else "is empty; "
        raise _fail(file, f"{empty}is no JSON ({first_line(error, 80)})") from None


def check_file(file: Path, **needs: bool) -> None:
    """:func:`check_annotations` of a file; a large one waits until it is read.

    Raises:
        InputError: If they are wrong.
    """
    if file.stat().st_size <= LARGE:
        check_annotations(_read(file), file, **needs)


def _category_list(file: Path) -> Any:
    """The categories of a large file, without reading the rest; None where they are not found."""
    key = b'"categories"'
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text:
        at = text.rfind(key)
        if at < 0:
            return None
        part = text[at + len(key) : at + len(key) + (16 << 20)].decode("utf-8", "ignore").lstrip(" \t\r\n:")
    try:
        return json.JSONDecoder().raw_decode(part)[0]
    except ValueError:
        return None


def categories_of(file: Path) -> list[str]:
    """Names of the categories, in the order of the file.

    Raises:
        InputError: If there are none.
    """
    found = _category_list(file) if file.stat().st_size > LARGE else None
    if not (isinstance(found, list) and all(isinstance(each, dict) and "name" in each for each in found)):
        found = _list(_read(file), "categories", file)
        _records(found, "categories", ("id", "name"), file)
    return [str(each["name"]) for each in found]


def placed(categories: Mapping[int, Mapping], ids: Sequence[int], wanted: Sequence[str]) -> list[int]:
    """Ids of categories at the places of their names: where a name is missing, stands an id that no category has.

    Args:
        categories: All that the file has, by id.
        ids: Of those that are wanted, in the order of the file.
        wanted: Names of the classes, in the order of labels.

    Returns:
        One id a class; ``ids`` as they are where the file has another order.
    """
    where = [wanted.index(categories[each]["name"]) for each in ids]
    if where != sorted(where):
        return list(ids)
    by_place = dict(zip(where, ids))
    free = max([0, *(each for each in categories if isinstance(each, int))]) + 1
    return [by_place.get(place, free + place) for place in range(len(wanted))]


def is_coco(kind: Any) -> bool:
    """Whether a class of data sets reads annotations as mmdet's ``CocoDataset`` does."""
    from mmdet.datasets import CocoDataset
    from mmdet.datasets.api_wrappers import COCOPanoptic

    if not (isinstance(kind, type) and issubclass(kind, CocoDataset)):
        return False
    kind_of_set: Any = kind
    reads_alike = kind_of_set.load_data_list is CocoDataset.load_data_list
    return reads_alike and not issubclass(kind_of_set.COCOAPI, COCOPanoptic)


def install() -> None:
    """Let mmdet's ``CocoDataset`` check what it reads, and give labels by name.

    By itself mmdet numbers the categories that it finds: a class that the file spells otherwise shifts all that follow.
    """
    from mmdet.datasets import CocoDataset
    from mmdet.datasets.api_wrappers import COCO

    if getattr(CocoDataset.COCOAPI, "is_checked", False):
        return

    class CheckedCoco(COCO):
        """Annotations that are checked as they are read; labels are places among the names of the classes."""

        is_checked = True

        def __init__(self, annotation_file: Any = None) -> None:
            self.file = annotation_file
            super().__init__(annotation_file)

        def createIndex(self) -> None:
            if self.file is not None:
                check_annotations(self.dataset, self.file)
            super().createIndex()

        def get_cat_ids(self, cat_names: Any = (), sup_names: Any = (), cat_ids: Any = ()) -> list[int]:
            found = super().get_cat_ids(cat_names, sup_names, cat_ids)
            if isinstance(cat_names, str) or not len(cat_names) or len(sup_names) or len(cat_ids):
                return found
            return placed(self.cats, found, list(cat_names))

    CocoDataset.COCOAPI = CheckedCoco
