"""Opening a data set by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from visionpe.scaling.folder import FolderSource, NamedSource
from visionpe.scaling.images import EmbeddedSource, Source
from visionpe.scaling.options import BY_NAME, EMBEDDED
from visionpe.utils.errors import InputError


def check_outside(out: Path, flag: str, data: str | None) -> None:
    """Refuse results among the images: their folder would be a class, and the plot an image, from then on.

    Args:
        out: Where the results go.
        flag, data: What names the images, and what it was given; None for nothing.

    Raises:
        InputError: If ``out`` is the folder of classes, or below it.
    """
    if data is None or data in BY_NAME:
        return
    folder = Path(data)
    folder = (folder / "val" if (folder / "val").is_dir() else folder).resolve()
    if out.resolve().is_relative_to(folder):
        raise InputError(f"--out {out}: is among the images of {flag} {data}; give a folder outside of it")


def open_source(name: str, split: Literal["test", "val"] = "test", class_map: str | None = None) -> Source:
    """Open a data set.

    Args:
        name: ``digits``, ``mnist``, ``elpv``, ``caltech101``, or a folder with one sub-folder a class (directly, or in
            its ``val/``).
        split: Of data by name; a folder is what it is.
        class_map: A file with the labels of the folders, see :func:`visionpe.scaling.class_map.read_class_map`.

    Returns:
        The images.

    Raises:
        InputError: If there is no such folder, or it holds no classes or no images, or ``class_map`` does not fit it.
    """
    if name in BY_NAME:
        if class_map is not None:
            raise InputError(f"--class-map {class_map}: goes with a folder of images, not with --data {name}")
        return EmbeddedSource(name, split) if name in EMBEDDED else NamedSource(name, split)
    return FolderSource(Path(name), class_map)
