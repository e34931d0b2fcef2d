"""Opening a data set by its name."""

from __future__ import annotations

from pathlib import Path

from visionpe.data.listed import Split
from visionpe.data.splitting import stratified
from visionpe.scaling.folder import FileSource, FolderSource, NamedSource
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


def open_source(name: str, split: Split = "test", class_map: str | None = None) -> Source:
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


def open_training(name: str, class_map: str | None = None) -> dict[str, Source]:
    """Open the images on which something is fitted, which are none of those that :func:`open_source` evaluates.

    Args:
        name, class_map: As for :func:`open_source`; a folder must hold ``train/`` and ``val/``.

    Returns:
        ``train``, and ``val`` for choices; of a folder nine tenths and a tenth of every class of its ``train/``.

    Raises:
        InputError: If a folder holds no ``train/``, or as for :func:`open_source`.
    """
    if name in BY_NAME:
        return {"train": open_source(name, "train", class_map), "val": open_source(name, "val", class_map)}
    folder = Path(name)
    if not ((folder / "train").is_dir() and (folder / "val").is_dir()):
        raise InputError(f"--data {name}: a probe is fitted on {folder / 'train'} and tested on {folder / 'val'}")
    whole = FolderSource(folder / "train", class_map)
    tenth = max(len(whole) // 10, whole.classes)
    found: dict[str, Source] = {}
    for split, indices in stratified([label for _, label in whole.samples], {"val": tenth}).items():
        part = FileSource(name, [whole.samples[i] for i in sorted(indices.tolist())], folder / "train")
        part.classes, part.folders = whole.classes, whole.folders
        found[split] = part
    return found
