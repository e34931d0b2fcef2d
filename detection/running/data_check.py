"""Say which files a data set should have before a dataset class fails on one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from visionpe.detection.data import coco, folders
from visionpe.detection.data.classes import (
    classes_of,
    dataset_class,
    downloads,
    image_folder,
    in_root,
    is_remote,
    prefixes,
)
from visionpe.detection.running.kinds import kind_name, steps
from visionpe.utils.errors import InputError
from visionpe.utils.files import special

TREES = {
    "ImageNet": """
        train/
            n01440764/  n01440764_18.JPEG ...
            n01443537/  ...
        val/
            n01440764/  ILSVRC2012_val_00000293.JPEG ...
            n01443537/  ...""",
    "CocoDataset": """
        annotations/  instances_train2017.json  instances_val2017.json
        train2017/    000000000009.jpg ...
        val2017/      000000000139.jpg ...""",
    "ADE20KDataset": """
        images/       training/ADE_train_00000001.jpg ...   validation/ADE_val_00000001.jpg ...
        annotations/  training/ADE_train_00000001.png ...   validation/ADE_val_00000001.png ...""",
    "S3DISDataset": """
        Area_1/  conferenceRoom_1/Annotations/beam_1.txt ...   copyRoom_1/Annotations/bookcase_1.txt ...   ...
        ...
        Area_6/  ...""",
    "ScanNetDataset": """
        scannetv2_train.txt  scannetv2_val.txt
        scans/
            scene0000_00/  scene0000_00_vh_clean_2.ply  scene0000_00_vh_clean_2.labels.ply
            scene0000_01/  ...""",
    "PointceptScanNetDataset": """
        train/
            scene0000_00/  coord.npy  color.npy  normal.npy  segment20.npy
            scene0000_01/  ...
        val/
            scene0011_00/  ...""",
    "PointceptS3DISDataset": """
        Area_1/
            conferenceRoom_1/  coord.npy  color.npy  normal.npy  segment.npy
            ...
        ...
        Area_6/  ...""",
}
# Digit scenes are laid out as ADE20K is, under a dataset class that takes other classes.
TREES["BaseSegDataset"] = TREES["ADE20KDataset"]
SCENES = "digit_scenes"  # in a path: data that a tool of ours writes


def datasets(config: Any, path: str) -> Iterator[tuple[str, Mapping]]:
    """Yield the configs of data sets in ``config`` and where, through wrappers such as ``RepeatDataset``."""
    if isinstance(config, Mapping):
        inner = [key for key in ("dataset", "datasets") if config.get(key) is not None]
        if not inner and "type" in config:
            yield path, config
        for key in inner:
            yield from datasets(config[key], f"{path}.{key}")
    elif isinstance(config, (list, tuple)):
        for index, item in enumerate(config):
            yield from datasets(item, f"{path}.{index}")


def _needed(dataset: Mapping, kind: str, scope: str | None) -> Iterator[Path]:
    """The files and folders of this machine that ``dataset`` reads."""
    names: list[Any] = [dataset["ann_file"]] if dataset.get("ann_file") else []
    if kind == "ImageNet":
        names = [next(iter(prefixes(dataset, scope)), str(dataset.get("split", "")))]
    elif kind in ("S3DISDataset", "PointceptS3DISDataset"):
        test = dataset.get("test_area", 5)
        names = ["", *(f"Area_{i}" for i in range(1, 7) if (i == test) == (dataset.get("split") == "test"))]
    elif kind == "PointceptScanNetDataset":
        names = ["", str(dataset.get("split", "train"))]
    elif kind == "ScanNetDataset":
        split = dataset.get("split", "train")
        names = ["", f"scannetv2_{split}.txt", "scans_test" if split == "test" else "scans"]
    else:
        names = [*([""] if dataset.get("data_root") is not None else []), *names, *prefixes(dataset, scope)]
    yield from (place for name in names if (place := in_root(dataset, name)) is not None)


def _check_panoptic(path: str) -> None:
    """Reading panoptic annotations, and measuring by them, takes a package that mmdet does not bring."""
    if find_spec("panopticapi") is None:
        raise InputError(f"{path} needs panopticapi: pip install git+https://github.com/cocodataset/panopticapi.git")


def _how_to_get(root: str, option: str) -> str:
    """What to do about a missing folder or file."""
    folder, found, _ = root.partition(SCENES)
    if found:
        out = f"{folder}{SCENES}"
        return f"Write the scenes with: visionpe scenes --out {out} (or python tools/make_digit_scenes.py --out {out})"
    return f"Link the data there, or give --cfg-options {option}"


def _missing(dataset: Mapping, scope: str | None, stage: str, path: str) -> FileNotFoundError | None:
    """The error for the first file or folder that is not there.

    Raises:
        InputError: For what is neither.
    """
    kind = kind_name(dataset)
    needed = list(_needed(dataset, kind, scope))
    missing = next((each for each in needed if not each.exists()), None)
    for each in needed:
        if each.exists() and not (each.is_file() or each.is_dir()):
            raise InputError(f"{stage} data: {str(each)!r} is {special(each)}; allowed: a file or a folder")
    if missing is None:
        return None
    root, tree = dataset.get("data_root"), TREES.get(kind)
    what = "file" if missing.suffix in (".json", ".txt") else "folder"
    option = (
        f"{path}.data_root=FOLDER" if root else f"{path}.{'ann_file=FILE' if what == 'file' else 'data_prefix=...'}"
    )
    return FileNotFoundError(
        f"{stage} data: {what} {str(missing)!r} does not exist"
        + (f"; expected\n\n    {str(root).rstrip('/')}/{tree}\n\n" if tree and root else "; ")
        + _how_to_get(str(root or missing), option)
    )


def _check_content(dataset: Mapping, scope: str | None, path: str) -> None:
    """What the files of a data set hold, as far as it can be seen fast."""
    found = dataset_class(dataset, scope)
    names = {each.__name__ for each in found.__mro__} if found else set()
    listed = in_root(dataset, dataset["ann_file"]) if dataset.get("ann_file") else None
    if "CocoDataset" in names:
        coco.install()
        if coco.is_coco(found) and listed is not None:
            masks = any(step.get("with_mask") for step in dataset.get("pipeline") or () if isinstance(step, Mapping))
            coco.check_file(listed, masks=masks)
    if "CustomDataset" in names and listed is not None and dataset.get("with_label", True):
        classes = classes_of(dataset, scope, path)
        folders.check_list(listed, len(classes) if classes else None)
    images = image_folder(dataset, scope)
    if images is not None:
        folders.warn_of_order(images, path)
    if images is not None or ("BaseSegDataset" in names and not dataset.get("ann_file")):
        places = [images] if images else [in_root(dataset, each) for each in prefixes(dataset, scope)]
        for folder in filter(None, places):
            folders.check_links(folder)


def evaluators(config: Mapping, stage: str) -> Iterator[tuple[str, Mapping]]:
    """Yield the evaluators of a stage, and where."""
    given = config.get(f"{stage}_evaluator") or []
    if isinstance(given, Mapping):
        yield f"{stage}_evaluator", given
        return
    for index, evaluator in enumerate(given):
        yield f"{stage}_evaluator.{index}", evaluator or {}


def _check_evaluators(config: Mapping, stage: str) -> None:
    for path, evaluator in evaluators(config, stage):
        if kind_name(evaluator) == "CocoPanopticMetric":
            _check_panoptic(path)
        file = str(evaluator.get("ann_file") or "")
        if not file or is_remote(file, evaluator):
            continue
        if not Path(file).expanduser().is_file():
            raise FileNotFoundError(
                f"{stage} annotations: {file!r} does not exist. {_how_to_get(file, f'{path}.ann_file=FILE')}"
            )
        if kind_name(evaluator) == "CocoMetric":
            metric = evaluator.get("metric", "bbox")
            masks = "segm" in ([metric] if isinstance(metric, str) else metric)
            coco.check_file(Path(file).expanduser(), masks=masks, crowds=True)


def check_outside(out: Path, flag: str, config: Mapping, stages: tuple[str, ...], inputs: Sequence[Any] = ()) -> None:
    """Refuse results that would take the place of what is read, or stand among the images of a data set.

    Args:
        out: A file or a folder that will be written.
        flag: It was given by, for the message.
        config: A config with ``<stage>_dataloader`` and ``<stage>_evaluator`` entries.
        stages: Of ``train``, ``val``, ``test``.
        inputs: Further files that are read.

    Raises:
        InputError: Names what is read.
    """
    scope, place = config.get("default_scope"), out.expanduser().resolve()
    read = [Path(str(each)).expanduser() for each in inputs]
    folders_read: list[Path] = []
    for stage in stages:
        for _, dataset in datasets(config.get(f"{stage}_dataloader"), f"{stage}_dataloader"):
            file = in_root(dataset, dataset["ann_file"]) if dataset.get("ann_file") else None
            read += [file] if file else []
            images = [image_folder(dataset, scope), *(in_root(dataset, each) for each in prefixes(dataset, scope))]
            folders_read += [each for each in images if each is not None and each.is_dir()]
        stated = (each.get("ann_file") for _, each in evaluators(config, stage))
        read += [Path(str(each)).expanduser() for each in stated if each]
    for each in read:
        if each.resolve() == place:
            raise InputError(f"{flag} {out}: would be written over, which is to be read; give another place")
    for each in folders_read:
        if place.is_relative_to(each.resolve()):
            raise InputError(f"{flag} {out}: is among the images of {str(each)!r}; give a place outside of it")


def check_data(config: Mapping, stages: tuple[str, ...]) -> None:
    """Make sure that the files of the data sets exist, and that annotations hold what is read of them.

    Args:
        config: A config with ``<stage>_dataloader`` and ``<stage>_evaluator`` entries.
        stages: Stages to check: of ``train``, ``val``, ``test``.

    Raises:
        FileNotFoundError: If a file or folder is missing; shows the expected tree.
        InputError: If annotations lack a field, name what does not exist, or an image is a link to nowhere; names the
            file, the record and the field. If panopticapi is needed and not installed.
    """
    scope = config.get("default_scope")
    for stage in stages:
        for path, dataset in datasets(config.get(f"{stage}_dataloader"), f"{stage}_dataloader"):
            if downloads(dataset, scope):
                continue
            missing = _missing(dataset, scope, stage, path)
            if missing is not None:
                raise missing
            if any(name == "LoadPanopticAnnotations" for name, _ in steps(dataset.get("pipeline"))):
                _check_panoptic(f"{path}.pipeline")
            _check_content(dataset, scope, path)
        _check_evaluators(config, stage)
