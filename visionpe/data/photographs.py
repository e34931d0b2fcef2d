"""Labelled photographs by name: the files, their labels, and how they are split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

from visionpe.data.caltech101 import load_caltech101
from visionpe.data.elpv import load_elpv
from visionpe.data.listed import Photographs, Split

# Where those that are no package's stand, a folder each.
ROOT = Path("data")


def _elpv(split: Split, root: Path) -> Photographs:
    return load_elpv(split)


def _caltech101(split: Split, root: Path) -> Photographs:
    return load_caltech101(split, root / "caltech101")


PHOTOGRAPHS: dict[str, Callable[[Split, Path], Photographs]] = {"elpv": _elpv, "caltech101": _caltech101}


def load_photographs(name: str, split: Split = "test", root: Path | str = ROOT) -> Photographs:
    """Find one split of a data set, the same at every call.

    Args:
        name: ``elpv`` (2,624 solar cells, 300 x 300 pixels, grey; functional or defective) or ``caltech101`` (natural
            images of 101 classes).
        split: ``train``, ``val`` (for choices) or ``test`` (for results).
        root: Folder of the data sets; ``caltech101`` in it is downloaded where it is not there.

    Returns:
        The files with their labels.

    Raises:
        ValueError: If ``name`` or ``split`` is unknown.
        ImportError: If the package that holds the images is not installed.
        FileNotFoundError: If they are not there and cannot be downloaded.
    """
    if name not in PHOTOGRAPHS:
        raise ValueError(f"name={name!r} is unknown; allowed: {', '.join(PHOTOGRAPHS)}")
    if split not in get_args(Split):
        raise ValueError(f"split={split!r} is unknown; allowed: {', '.join(get_args(Split))}")
    return PHOTOGRAPHS[name](split, Path(root))
