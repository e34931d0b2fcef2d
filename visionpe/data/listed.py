"""Images as a list of files with labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Photographs:
    """One split of a data set.

    Args:
        name: Of the data set.
        classes: Names of the classes, in the order of labels.
        samples: Files and their labels.
    """

    name: str
    classes: tuple[str, ...]
    samples: tuple[tuple[Path, int], ...]

    @property
    def labels(self) -> dict[str, int]:
        """Of the classes, by name."""
        return {name: label for label, name in enumerate(self.classes)}

    def __len__(self) -> int:
        return len(self.samples)
