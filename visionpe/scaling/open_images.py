"""Opening a data set by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from visionpe.scaling.folder import FolderSource
from visionpe.scaling.images import EmbeddedSource, Source
from visionpe.scaling.options import EMBEDDED


def open_source(name: str, split: Literal["test", "val"] = "test") -> Source:
    """Open a data set.

    Args:
        name: ``digits``, ``mnist``, or a folder with one sub-folder a class (directly, or in its ``val/``).
        split: Of embedded data; a folder is what it is.

    Returns:
        The images.

    Raises:
        InputError: If there is no such folder, or it holds no classes or no images.
    """
    if name in EMBEDDED:
        return EmbeddedSource(name, split)
    return FolderSource(Path(name))
