"""Say which files a data set should have before a dataset class fails on one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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
}
# Digit scenes are laid out as ADE20K is, under a dataset class that takes other classes.
TREES["BaseSegDataset"] = TREES["ADE20KDataset"]
SCENES = "digit_scenes"  # in a path: data that a tool of ours writes


def _datasets(config: Any, path: str) -> Iterator[tuple[str, Mapping]]:
    """Yield the dataset configs in ``config`` and where, through wrappers such as ``RepeatDataset``."""
    if isinstance(config, Mapping):
        if config.get("data_root") is not None:
            yield path, config
        for key in ("dataset", "datasets"):
            yield from _datasets(config.get(key), f"{path}.{key}")
    elif isinstance(config, (list, tuple)):
        for index, item in enumerate(config):
            yield from _datasets(item, f"{path}.{index}")


def _needed(dataset: Mapping, kind: str) -> Iterator[Path]:
    """The files and folders that ``dataset`` reads."""
    root = Path(str(dataset["data_root"])).expanduser()
    if kind == "ImageNet":
        yield root / str(dataset.get("split", ""))
        return
    yield root
    if kind == "S3DISDataset":
        test = dataset.get("test_area", 5)
        yield from (root / f"Area_{i}" for i in range(1, 7) if (i == test) == (dataset.get("split") == "test"))
    if kind == "ScanNetDataset":
        split = dataset.get("split", "train")
        yield from (root / f"scannetv2_{split}.txt", root / ("scans_test" if split == "test" else "scans"))
    if dataset.get("ann_file"):
        yield root / str(dataset["ann_file"])
    yield from (root / str(folder) for folder in (dataset.get("data_prefix") or {}).values() if folder)


def _how_to_get(root: str, option: str) -> str:
    """What to do about a missing folder or file."""
    folder, found, _ = root.partition(SCENES)
    if found:
        out = f"{folder}{SCENES}"
        return f"Write the scenes with: visionpe scenes --out {out} (or python tools/make_digit_scenes.py --out {out})"
    return f"Link the data there, or give --cfg-options {option}"


def _check_evaluators(config: Mapping, stage: str) -> None:
    evaluators = config.get(f"{stage}_evaluator") or []
    single = isinstance(evaluators, Mapping)
    for index, evaluator in enumerate([evaluators] if single else evaluators):
        file = str((evaluator or {}).get("ann_file") or "")
        if file and "://" not in file and not Path(file).expanduser().is_file():
            option = f"{stage}_evaluator.{'' if single else f'{index}.'}ann_file=FILE"
            raise FileNotFoundError(f"{stage} annotations: {file!r} does not exist. {_how_to_get(file, option)}")


def check_data(config: Mapping, stages: tuple[str, ...]) -> None:
    """Make sure that the folders and annotation files of the data sets exist.

    Args:
        config: A config with ``<stage>_dataloader`` and ``<stage>_evaluator`` entries.
        stages: Stages to check: of ``train``, ``val``, ``test``.

    Raises:
        FileNotFoundError: If one is missing; shows the expected tree.
    """
    for stage in stages:
        for path, dataset in _datasets(config.get(f"{stage}_dataloader"), f"{stage}_dataloader"):
            kind = str(dataset.get("type", "")).split(".")[-1]
            root = str(dataset["data_root"])
            missing = next((path for path in _needed(dataset, kind) if not path.exists()), None)
            if "://" in root or missing is None:
                continue
            tree = TREES.get(kind)
            what = "file" if missing.suffix in (".json", ".txt") else "folder"
            raise FileNotFoundError(
                f"{stage} data: {what} {str(missing)!r} does not exist"
                + (f"; expected\n\n    {root.rstrip('/')}/{tree}\n\n" if tree else "; ")
                + _how_to_get(root, f"{path}.data_root=FOLDER")
            )
        _check_evaluators(config, stage)
