"""What a data set of a config is, and its classes, without building it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.registry import DATASETS

from visionpe.detection.running.kinds import steps
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


def innermost(dataset: Any) -> Any:
    """The data set inside wrappers such as ``RepeatDataset``; of several the first."""
    while hasattr(dataset, "dataset") or getattr(dataset, "datasets", None):
        dataset = dataset.dataset if hasattr(dataset, "dataset") else dataset.datasets[0]
    return dataset


def kind_of(dataset: Mapping, scope: str | None, *names: str) -> bool:
    """Whether a data set is of one of these classes, or of one made from them, by their names."""
    found = dataset_class(dataset, scope)
    return found is not None and any(each.__name__ in names for each in found.__mro__)


def downloads(dataset: Mapping, scope: str | None) -> bool:
    """Whether a data set fetches what is missing."""
    found = dataset_class(dataset, scope)
    if found is None:
        return False
    # A subclass may hand the keyword on without naming it.
    parameters = (inspect.signature(each.__init__).parameters for each in found.__mro__)  # type: ignore[misc]
    stated = next((each["download"].default for each in parameters if "download" in each), False)
    return bool(dataset.get("download", stated))


def is_remote(path: Any, owner: Mapping) -> bool:
    """Whether a path is an address, or one that a backend of mmengine opens that is not this machine's.

    Args:
        path: Of a file or folder.
        owner: The config that names it, with its ``backend_args``.
    """
    backend = owner.get("backend_args") or {}
    return "://" in str(path) or backend.get("backend", "local") != "local"


def in_root(dataset: Mapping, path: Any) -> Path | None:
    """A path of a data set below its ``data_root``; None where it is not on this machine."""
    root, path = str(dataset.get("data_root") or ""), str(path)
    if is_remote(path, dataset) or (is_remote(root, dataset) and not Path(path).is_absolute()):
        return None
    return Path(root).expanduser() / Path(path).expanduser()


def _loads_labels(dataset: Mapping, scope: str | None) -> bool:
    """Whether the pipeline reads label maps: one that does not leaves their folder alone."""
    if dataset.get("pipeline") is None:
        return not kind_of(dataset, scope, "BaseDetDataset")  # mmdet's are asked to
    for name, step in steps(dataset["pipeline"]):
        if name.startswith("Load") and "Annotations" in name:
            # mmdet's reads them where it is asked to, mmseg's and that of panoptic maps always.
            default = name != "LoadAnnotations" or not kind_of(dataset, scope, "BaseDetDataset")
            if step.get("with_seg", default):
                return True
    return False


def prefixes(dataset: Mapping, scope: str | None) -> list[str]:
    """The folders that ``data_prefix`` names and that are read, be it text or a mapping.

    Of a mapping these are images, and label maps where the pipeline loads them.
    """
    given = dataset.get("data_prefix") or {}
    if not isinstance(given, Mapping):
        return [str(given)]
    labels = _loads_labels(dataset, scope)
    return [str(each) for name, each in given.items() if each and ("img" in name or (labels and "seg" in name))]


def image_folder(dataset: Mapping, scope: str | None) -> Path | None:
    """The folder whose sub-folders are the classes of mmpretrain's ``CustomDataset`` and ``ImageNet``; else None."""
    if dataset.get("ann_file") or not kind_of(dataset, scope, "CustomDataset"):
        return None
    split = str(dataset.get("split") or "")
    if split == "test" or not dataset.get("with_label", True):
        return None
    listed = in_root(dataset, f"meta/{split}.txt")
    if split and listed is not None and listed.is_file():
        return None  # which is read in place of the folders
    return in_root(dataset, next(iter(prefixes(dataset, scope)), split))


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
    if isinstance(given, str) and is_remote(given, dataset):
        return None
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
