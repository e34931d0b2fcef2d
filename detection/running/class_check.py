"""Classes of the config, of the data and of the model's heads are the same, before anything is trained on them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from visionpe.detection.data import coco
from visionpe.detection.data.classes import classes_of, dataset_class, folder_names, image_folder, in_root
from visionpe.detection.running.data_check import datasets, evaluators
from visionpe.detection.running.kinds import kind_name
from visionpe.utils.errors import InputError

HEADS = ("bbox_head", "roi_head", "mask_head", "decode_head", "auxiliary_head", "head")
# Parts of heads that tell objects from background, or have classes of their own.
OTHERS = ("rpn_head", "semantic_head")


def _shown(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)})" if len(names) > most else "")


def _heads(model: nn.Module) -> Iterator[tuple[str, int]]:
    """Where the model says how many classes it has."""
    own = getattr(getattr(model, "model", None), "num_classes", None)  # of a timm model as a classifier
    if isinstance(own, int):
        yield "model.num_classes", own
    for name, module in model.named_modules():
        parts = name.split(".")
        number = getattr(module, "num_classes", None)
        if parts[0] in HEADS and not set(OTHERS) & set(parts) and isinstance(number, int):
            yield f"model.{name}.num_classes", number


def check_heads(model: nn.Module, config: Mapping, stages: Sequence[str]) -> None:
    """Refuse heads with another number of classes than the data.

    Args:
        model: As built, without wrappers.
        config: The config.
        stages: Of ``train``, ``val``, ``test``.

    Raises:
        InputError: Names the head and the data set.
    """
    scope = config.get("default_scope")
    heads = dict(_heads(model))
    for stage in stages:
        for path, dataset in datasets(config.get(f"{stage}_dataloader"), f"{stage}_dataloader"):
            kind: Any = dataset_class(dataset, scope)
            given = {**getattr(kind, "METAINFO", {}), **(dataset.get("metainfo") or {})}
            classes = classes_of(dataset, scope, path)
            if classes is None or "thing_classes" in given:  # panoptic heads count things and stuff apart
                continue
            for name, number in heads.items():
                if number != len(classes):
                    raise InputError(
                        f"{name}={number}, but {path} has {len(classes)} classes ({_shown(classes)}); "
                        f"allowed: {len(classes)}, or other {path}.metainfo.classes"
                    )


def _near(missing: str, there: Sequence[str]) -> str:
    near = difflib.get_close_matches(missing, there, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; it has {_shown(there)}"


def _check_names(classes: Sequence[str], names: Sequence[str], file: Path, path: str) -> list[str]:
    """The classes that a file of annotations lacks; refuses another order.

    Raises:
        InputError: If the names stand in another order: mmdet numbers them as the file does.
    """
    common = [name for name in names if name in classes]
    wanted = [name for name in classes if name in names]
    if common != wanted:
        first = next(i for i, (a, b) in enumerate(zip(common, wanted)) if a != b)
        raise InputError(
            f"{path}.metainfo.classes: {wanted[first]!r} stands where {str(file)!r} has {common[first]!r}; mmdet "
            f"numbers classes as the file does, so give them in its order: {_shown(common, 20)}"
        )
    return [name for name in classes if name not in names]


def check_categories(config: Mapping, stages: Sequence[str]) -> None:
    """Refuse classes that COCO's files do not have, by the names.

    A class must be in one of the files of a stage at least, and in the file of the evaluator, which gives each its own.

    Args:
        config: The config.
        stages: Of ``train``, ``val``, ``test``.

    Raises:
        InputError: Names the class, the file, and what is near.
    """
    scope = config.get("default_scope")
    for stage in stages:
        found: list[tuple[str, tuple[str, ...], list[str], Path]] = []
        for path, dataset in datasets(config.get(f"{stage}_dataloader"), f"{stage}_dataloader"):
            classes = classes_of(dataset, scope, path)
            file = in_root(dataset, dataset.get("ann_file") or "")
            if classes and dataset.get("ann_file") and file and file.is_file() and _reads_coco(dataset, scope):
                names = coco.categories_of(file)
                _check_names(classes, names, file, path)
                found.append((path, classes, names, file))
        seen = {name for *_, names, _ in found for name in names}
        for path, classes, names, file in found:
            lacking = [name for name in classes if name not in seen]
            if lacking:
                raise InputError(
                    f"{path}.metainfo.classes: {lacking[0]!r} is no category of {str(file)!r}{_near(lacking[0], names)}"
                )
        for path, evaluator in evaluators(config, stage) if found else ():
            file = Path(str(evaluator.get("ann_file") or "")).expanduser()
            if kind_name(evaluator) != "CocoMetric" or not file.is_file():
                continue
            names = coco.categories_of(file)
            lacking = _check_names(found[0][1], names, file, found[0][0])
            if lacking:
                raise InputError(
                    f"{path}.ann_file: {lacking[0]!r} is no category of {str(file)!r}{_near(lacking[0], names)}"
                )


def _reads_coco(dataset: Mapping, scope: str | None) -> bool:
    kind = dataset_class(dataset, scope)
    return kind is not None and any(each.__name__ == "CocoDataset" for each in kind.__mro__) and coco.is_coco(kind)


def check_order(classes: Sequence[str] | None, others: Sequence[str] | None, here: str, there: str) -> None:
    """Refuse classes that have other labels in another place.

    Args:
        classes, others: Names in the order of labels; None where nobody knows.
        here, there: Where they stand, for the message.

    Raises:
        InputError: Names the first class whose label differs.
    """
    labels = {name: label for label, name in enumerate(others or ())}
    for label, name in enumerate(classes or ()):
        if labels.get(name, label) != label:
            raise InputError(
                f"{here}: {name!r} has label {label}, but {labels[name]} in {there}; the classes must be the same, in "
                f"the same order: {_shown(others or (), 12)}"
            )


def check_folders(config: Mapping, stages: Sequence[str]) -> None:
    """Refuse class folders that the config counts or names otherwise, or that have other labels in another stage.

    Raises:
        InputError: Names the data set and the first class whose label differs; a missing folder shifts the rest.
    """
    scope, first = config.get("default_scope"), None
    for stage in stages:
        for path, dataset in datasets(config.get(f"{stage}_dataloader"), f"{stage}_dataloader"):
            folder = image_folder(dataset, scope)
            if folder is None or not folder.is_dir():
                continue
            names, given = folder_names(folder), classes_of(dataset, scope, path) or ()
            if len(given) != len(names):
                raise InputError(
                    f"{path}: {len(given)} classes, but {str(folder)!r} has {len(names)} folders ({_shown(names)}); "
                    "one folder a class, by letter"
                )
            if set(given) == set(names):
                check_order(given, names, f"{path}.metainfo.classes", f"{folder}, whose folders are numbered by letter")
            first = first or (folder, names)
            check_order(names, first[1], f"{path}, {folder}", str(first[0]))


def tested_classes(config: Mapping) -> tuple[str, ...] | None:
    """Names of the classes of the first data set that a config is tested on: of its folders, where there are some."""
    for path, dataset in datasets(config.get("test_dataloader"), "test_dataloader"):
        return classes_of(dataset, config.get("default_scope"), path)
    return None
