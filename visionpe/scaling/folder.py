"""Image files with labels, of a folder or a data set by name, prepared by timm's own evaluation transform."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from visionpe.data.listed import Split
from visionpe.data.photographs import load_photographs
from visionpe.scaling.class_map import class_order, read_class_map
from visionpe.scaling.images import Source
from visionpe.scaling.options import BY_NAME, NATIVE, Protocol
from visionpe.scaling.protocols import ViewSpec, place
from visionpe.scaling.sizes import Size
from visionpe.utils.errors import InputError, first_line
from visionpe.utils.pictures import open_picture
from visionpe.utils.resizing import native_size


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


class FileSource(Source):
    """Image files with their labels.

    Args:
        name: What ``--data`` was.
        samples: Files and labels.
        root: What the files are called by in the fingerprint.
    """

    def __init__(self, name: str, samples: Sequence[tuple[str | Path, int]], root: Path) -> None:
        self.name, self.samples, self.root = name, samples, root
        digest = hashlib.sha256()
        for path, label in samples:
            try:
                stat = Path(path).stat()
            except OSError:  # a link to nowhere: an image that cannot be read
                stat = Path(path).lstat()
            digest.update(f"{Path(path).relative_to(root)}:{label}:{stat.st_size}:{stat.st_mtime_ns}\n".encode())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.samples)

    def path(self, index: int) -> str:
        return str(self.samples[index][0])

    def view(self, index: int, *, protocol: Protocol, size: Size, spec: ViewSpec) -> tuple[Tensor, int]:
        path, label = self.samples[index]
        image = open_picture(path, "L" if spec.channels == 1 else "RGB")
        if protocol == NATIVE:
            return self._native(image, size, spec), label
        shown = size if protocol == "object" else spec.trained
        mean, std = (values[: spec.channels] for values in (spec.mean, spec.std))
        tensor = _transform(spec.channels, shown, spec.crop, spec.interpolation, mean, std)(image)
        if protocol == "canvas":
            tensor = place(tensor, size, spec.seed, index)  # 0 is the mean colour after normalisation
        return tensor, label

    def _native(self, image: Image.Image, size: Size, spec: ViewSpec) -> Tensor:
        assert spec.patch is not None
        height, width = native_size((image.height, image.width), size, spec.patch)
        how = Image.Resampling[spec.interpolation.upper()]
        pixels = torch.from_numpy(np.array(image.resize((width, height), how)))  # (height, width[, C])
        return spec.normalise(pixels.view(height, width, -1).permute(2, 0, 1).float())


class NamedSource(FileSource):
    """Photographs by name.

    Args:
        name: See :func:`visionpe.data.photographs.load_photographs`.
        split: ``test``, ``val`` for choices, or ``train``.

    Raises:
        InputError: If they are not installed, or not there and cannot be downloaded.
    """

    metric = "balanced"  # classes of 31 to 800 images; a third of the cells

    def __init__(self, name: str, split: Split = "test") -> None:
        try:
            photographs = load_photographs(name, split)
        except (ImportError, FileNotFoundError) as error:
            raise InputError(f"--data {name}: {first_line(error)}") from None
        root = Path(os.path.commonpath([path for path, _ in photographs.samples]))
        super().__init__(name, photographs.samples, root)
        self.classes = len(photographs.classes)
        self.folders = photographs.labels


class FolderSource(FileSource):
    """A folder with one sub-folder of images a class, labelled in the order of :func:`class_order`.

    Args:
        folder: The folder, or its parent if that holds a ``val/``.
        class_map: A file that gives labels instead, see :func:`visionpe.scaling.class_map.read_class_map`; it may name
            more folders than there are.

    Raises:
        InputError: If it does not exist, or holds no class folders or no images, or ``class_map`` does not name one.
    """

    def __init__(self, folder: Path, class_map: str | Path | None = None) -> None:
        from torchvision.datasets import ImageFolder

        given = None if class_map is None else read_class_map(class_map)

        class LabelledFolder(ImageFolder):
            def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
                names, labels = class_order(Path(directory))
                if given is None:
                    return names, labels
                left = [name for name in names if name not in given]
                if left:
                    raise InputError(
                        f"--class-map {class_map}: does not name the folder {str(Path(directory, left[0]))!r}"
                    )
                return names, {name: given[name] for name in names}

        from torchvision.datasets.folder import IMG_EXTENSIONS

        if not folder.is_dir():
            raise InputError(f"--data {folder}: no such folder; allowed: {', '.join(BY_NAME)} or a folder of classes")
        root = folder / "val" if (folder / "val").is_dir() else folder
        if not any(child.is_dir() for child in root.iterdir()):
            raise InputError(f"--data {folder}: {root} is empty of class folders; expected {root}/<class>/<image>")
        # A class without images still counts as a class: it keeps the labels of the others in place.
        self.images = LabelledFolder(str(root), allow_empty=True)
        if not self.images.samples:
            raise InputError(
                f"--data {folder}: the class folders in {root} hold no images ({' '.join(IMG_EXTENSIONS)})"
            )
        super().__init__(str(folder), self.images.samples, root)
        self.folders = given or self.images.class_to_idx
        self.classes = max(self.folders.values()) + 1
