"""ImageNet-style folders, read by torchvision and prepared by timm's own evaluation transform."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from visionpe.scaling.images import Source
from visionpe.scaling.options import EMBEDDED, Protocol
from visionpe.scaling.protocols import ViewSpec, place
from visionpe.scaling.sizes import Size
from visionpe.utils.errors import InputError


@lru_cache(maxsize=8)
def _transform(
    channels: int, size: Size, crop: float, interpolation: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> Any:
    from timm.data import create_transform

    return create_transform(
        input_size=(channels, *size),
        crop_pct=crop,
        interpolation=interpolation,
        mean=tuple(value / 255 for value in mean),
        std=tuple(value / 255 for value in std),
    )


def class_order(folder: Path) -> tuple[list[str], dict[str, int]]:
    """Sub-folders and their labels; numbers by value, 2 before 10, as timm has it, where torchvision goes by letter.

    Args:
        folder: With one sub-folder a class.
    """

    def natural(name: str) -> list[tuple[int, int, str]]:
        parts = re.split(r"(\d+)", name.lower())
        return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]

    names = sorted((child.name for child in folder.iterdir() if child.is_dir()), key=natural)
    return names, {name: label for label, name in enumerate(names)}


class FolderSource(Source):
    """A folder with one sub-folder of images a class, labelled in the order of :func:`class_order`.

    Args:
        folder: The folder, or its parent if that holds a ``val/``.

    Raises:
        InputError: If it does not exist, or holds no class folders or no images.
    """

    def __init__(self, folder: Path) -> None:
        from torchvision.datasets import ImageFolder

        class NaturalFolder(ImageFolder):
            def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
                return class_order(Path(directory))

        from torchvision.datasets.folder import IMG_EXTENSIONS

        self.name = str(folder)
        if not folder.is_dir():
            raise InputError(f"--data {folder}: no such folder; allowed: {', '.join(EMBEDDED)} or a folder of classes")
        root = folder / "val" if (folder / "val").is_dir() else folder
        if not any(child.is_dir() for child in root.iterdir()):
            raise InputError(f"--data {folder}: {root} is empty of class folders; expected {root}/<class>/<image>")
        # A class without images still counts as a class: it keeps the labels of the others in place.
        self.images = NaturalFolder(str(root), allow_empty=True)
        if not self.images.samples:
            raise InputError(
                f"--data {folder}: the class folders in {root} hold no images ({' '.join(IMG_EXTENSIONS)})"
            )
        self.root, self.classes = root, len(self.images.classes)
        digest = hashlib.sha256()
        for path, label in self.images.samples:
            stat = Path(path).stat()
            digest.update(f"{Path(path).relative_to(root)}:{label}:{stat.st_size}:{stat.st_mtime_ns}\n".encode())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.images.samples)

    def path(self, index: int) -> str:
        return self.images.samples[index][0]

    def view(self, index: int, *, protocol: Protocol, size: Size, spec: ViewSpec) -> tuple[Tensor, int]:
        path, label = self.images.samples[index]
        with Image.open(path) as file:
            image = file.convert("L" if spec.channels == 1 else "RGB")
        shown = size if protocol == "object" else spec.trained
        mean, std = (values[: spec.channels] for values in (spec.mean, spec.std))
        tensor = _transform(spec.channels, shown, spec.crop, spec.interpolation, mean, std)(image)
        if protocol == "canvas":
            tensor = place(tensor, size, spec.seed, index)  # 0 is the mean colour after normalisation
        return tensor, label
