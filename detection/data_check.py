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
}


def _datasets(config: Any) -> Iterator[Mapping]:
    """Yield the dataset configs in ``config``, through wrappers such as ``RepeatDataset`` and ``ConcatDataset``."""
    if isinstance(config, Mapping):
        if config.get("data_root") is not None:
            yield config
        for key in ("dataset", "datasets"):
            yield from _datasets(config.get(key))
    elif isinstance(config, (list, tuple)):
        for item in config:
            yield from _datasets(item)


def check_data(config: Mapping, stages: tuple[str, ...]) -> None:
    """Make sure that the folders of the data sets exist.

    Args:
        config: A config with ``<stage>_dataloader`` entries.
        stages: Stages to check: of ``train``, ``val``, ``test``.

    Raises:
        FileNotFoundError: If a folder is missing; shows the expected tree.
    """
    for stage in stages:
        for dataset in _datasets(config.get(f"{stage}_dataloader")):
            kind = str(dataset.get("type", "")).split(".")[-1]
            root = str(dataset["data_root"])
            split = str(dataset.get("split", "")) if kind == "ImageNet" else ""
            missing = Path(root, split)
            if "://" in root or missing.expanduser().is_dir():
                continue
            tree = TREES.get(kind)
            raise FileNotFoundError(
                f"{stage} data: folder {str(missing)!r} does not exist"
                + (f"; expected\n\n    {root.rstrip('/')}/{tree}\n\n" if tree else "; ")
                + f"Link the data there, or give --cfg-options {stage}_dataloader.dataset.data_root=FOLDER"
            )
