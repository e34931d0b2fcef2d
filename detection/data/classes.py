"""What a data set of a config is, and its classes, without building it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.registry import DATASETS

from visionpe.detection.running.quiet import quiet_imports
from visionpe.utils.errors import InputError

SCOPES = ("mmpretrain", "mmdet", "mmseg")


def dataset_class(dataset: Mapping, scope: str | None = None) -> type | None:
    """The class of a data set; None where nobody has registered it.

    Args:
        dataset: Its config.
        scope: Default scope of the whole config; without one, those of mmpretrain, mmdet and mmseg are searched.
    """
    kind = dataset.get("type")
    if not isinstance(kind, str):
        return kind if isinstance(kind, type) else None
    for each in [scope] if scope in SCOPES else SCOPES:
        with quiet_imports(), DATASETS.switch_scope_and_registry(each) as registry:
            found = registry.get(kind)
        if isinstance(found, type):
            return found
    return None


def kind_of(dataset: Mapping, scope: str | None, *names: str) -> bool:
    """Whether a data set is of one of these classes, or of one made from them, by their names."""
    found = dataset_class(dataset, scope)
    return found is not None and any(each.__name__ in names for each in found.__mro__)


def downloads(dataset: Mapping, scope: str | None) -> bool:
    """Whether a data set fetches what is missing."""
    found = dataset_class(dataset, scope)
    if found is None:
        return False
    parameter = inspect.signature(found).parameters.get("download")
    return bool(dataset.get("download", parameter.default if parameter else False))


def in_root(dataset: Mapping, path: Any) -> Path:
    """A path of a data set below its ``data_root``."""
    return Path(str(dataset.get("data_root") or "")).expanduser() / Path(str(path)).expanduser()


def prefixes(dataset: Mapping) -> list[str]:
    """The folders that ``data_prefix`` names, be it text or a mapping."""
    given = dataset.get("data_prefix") or {}
    return [str(each) for each in (given.values() if isinstance(given, Mapping) else [given]) if each]


def image_folder(dataset: Mapping, scope: str | None) -> Path | None:
    """The folder whose sub-folders are the classes of mmpretrain's ``CustomDataset`` and ``ImageNet``; else None."""
    if dataset.get("ann_file") or not kind_of(dataset, scope, "CustomDataset"):
        return None
    split = str(dataset.get("split") or "")
    if split == "test" or not dataset.get("with_label", True):
        return None
    if split and in_root(dataset, f"meta/{split}.txt").is_file():
        return None  # which is read in place of the folders
    return in_root(dataset, next(iter(prefixes(dataset)), split))


def folder_names(folder: Path) -> list[str]:
    """Sub-folders in the order that mmpretrain gives them labels: by letter."""
    return sorted(child.name for child in folder.iterdir() if child.is_dir())


def classes_of(dataset: Mapping, scope: str | None, where: str) -> tuple[str, ...] | None:
    """Names of the classes, in the order of labels; None where the config does not tell.

    Args:
        dataset: Config of a data set.
        scope: Default scope of the whole config.
        where: It stands in the config, for messages.

    Raises:
        InputError: If they are text, and no file.
    """
    given = (dataset.get("metainfo") or {}).get("classes", dataset.get("classes"))
    if isinstance(given, str):
        file = Path(given).expanduser()
        if not file.is_file():
            raise InputError(
                f"{where}.metainfo.classes={given!r} is text, and no file; allowed: names, for one class ({given!r},)"
            )
        given = [line.rstrip("\r\n") for line in file.read_text().splitlines()]
    if given is None:
        given = getattr(dataset_class(dataset, scope), "METAINFO", {}).get("classes")
    if given is None and (folder := image_folder(dataset, scope)) is not None and folder.is_dir():
        given = folder_names(folder)
    return None if given is None else tuple(map(str, given))
