"""Folders of images before a data set lists them: links to nowhere, lists of labels, and the order of classes."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from visionpe.detection.data.classes import folder_names
from visionpe.utils.errors import InputError
from visionpe.utils.ordering import natural_key
from visionpe.utils.pictures import read_bytes


def check_links(folder: Path) -> None:
    """Refuse links to nowhere below a folder, which OpenMMLab would leave out without a word, and pipes.

    Raises:
        visionpe.utils.pictures.PictureError: Names the first.
    """
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    waiting.append(Path(entry.path))
                elif not os.path.isfile(entry.path):
                    read_bytes(entry.path)  # says what is wrong


def check_list(file: Path, classes: int | None) -> None:
    """Refuse a list of images and labels of which a line is none.

    Args:
        file: A line an image: its path, a space, its label.
        classes: Their number; None where nobody knows.

    Raises:
        InputError: Names the file and the line.
    """
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            words = line.strip().rsplit(" ", 1)
            label = words[1] if len(words) == 2 and words[1].isdecimal() else None
            if label is None or (classes is not None and int(label) >= classes):
                allowed = "a whole number from 0" if classes is None else f"0 to {classes - 1}"
                raise InputError(
                    f"{file}, line {number}: {line.strip()[:80]!r}; allowed: an image's path and its label, {allowed}"
                )


def warn_of_order(folder: Path, where: str) -> None:
    """Say where mmpretrain numbers folders otherwise than timm and ``visionpe scaling``."""
    names = folder_names(folder)
    other = sorted(names, key=natural_key)
    if names != other:
        name = next(name for name, second in zip(names, other) if name != second)
        logging.getLogger("mmengine").warning(
            "%s: mmpretrain numbers the folders of %s by letter, timm and `visionpe scaling` by value: %r has label %d "
            "here, %d there. Weights that timm trained have other labels; measure those trained here with --class-map",
            *(where, folder, name, names.index(name), other.index(name)),
        )
