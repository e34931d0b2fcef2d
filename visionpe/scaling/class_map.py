"""Which label a folder of images has: by the order of names, or by a file."""

from __future__ import annotations

import json
from pathlib import Path

from visionpe.scaling.images import Source
from visionpe.scaling.models import ModelEntry
from visionpe.utils.errors import InputError, first_line
from visionpe.utils.ordering import natural_key

SUFFIXES = (".txt", ".json")


def class_order(folder: Path) -> tuple[list[str], dict[str, int]]:
    """Sub-folders and their labels in the order of :func:`natural_key`, where torchvision and mmpretrain go by letter.

    Args:
        folder: With one sub-folder a class; hidden ones (``.cache``) are none.
    """
    names = sorted(
        (child.name for child in folder.iterdir() if child.is_dir() and not child.name.startswith(".")),
        key=natural_key,
    )
    return names, {name: label for label, name in enumerate(names)}


def read_class_map(path: str | Path) -> dict[str, int]:
    """Labels by the names of folders, from a file.

    Args:
        path: ``.txt``, a name a line, the first of label 0, as timm has it; ``.json``, a list of names or an object
            that gives each its label.

    Raises:
        InputError: If it cannot be read, or names a folder or a label twice.
    """
    path = Path(path).expanduser()
    flag = f"--class-map {path}"
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{flag}: cannot be read; allowed: {', '.join(SUFFIXES)}")
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix.lower() == ".json" else [x.strip() for x in text.rstrip().split("\n")]
    except FileNotFoundError:
        raise InputError(f"{flag}: no such file") from None
    except (OSError, ValueError) as error:  # of text, of JSON
        raise InputError(f"{flag}: cannot be read ({first_line(error, 80)})") from None
    if not isinstance(content, (list, dict)) or not content or not text.strip():
        raise InputError(f"{flag}: holds no names; expected a name of a folder a line, or a JSON list of them")
    pairs = list(content.items()) if isinstance(content, dict) else list(zip(content, range(len(content))))
    for line, (name, label) in enumerate(pairs, 1):
        if not (isinstance(name, str) and name):
            raise InputError(f"{flag}, line {line}: {name!r} is no name of a folder")
        if type(label) is not int or label < 0:
            raise InputError(f"{flag}: {name!r} has the label {label!r}; allowed: whole numbers from 0")
    found: dict[str, int] = {}
    for name, label in pairs:
        if name in found:
            raise InputError(f"{flag}: names {name!r} twice")
        found[name] = label
    return found


def check_order(entry: ModelEntry, source: Source) -> None:
    """Refuse images whose folders have other labels than those that a run was trained on.

    Raises:
        InputError: If it is known of both, and differs.
    """
    trained = {name: label for label, name in enumerate(entry.classes or ())}
    if not source.folders.keys() <= trained.keys():
        return
    for name in sorted(source.folders, key=natural_key):
        if source.folders[name] != trained[name]:
            raise InputError(
                f"--data {source.name}: the folder {name!r} has label {source.folders[name]}, but {entry.label} was "
                f"trained with label {trained[name]}; give --class-map a file with the folders in the order of training"
            )
