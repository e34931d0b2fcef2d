"""Labelled images for evaluation, shown one by one at any resolution."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from visionpe.data.listed import Split
from visionpe.scaling.options import Metric, Protocol
from visionpe.scaling.protocols import ViewSpec, place
from visionpe.scaling.sizes import Size
from visionpe.utils.errors import InputError, first_line
from visionpe.utils.pictures import PictureError
from visionpe.utils.resizing import resize_images


class Source(ABC):
    """A labelled set of images that can be shown at any resolution.

    Attributes:
        name: What ``--data`` was.
        fingerprint: Changes when the images do.
        classes: Number of classes.
        folders: Labels by the names of folders, where the images stand in folders.
        metric: By which accuracy is read, where nothing is asked for.
    """

    name: str
    fingerprint: str
    classes: int
    folders: Mapping[str, int] = MappingProxyType({})
    metric: Metric = "top1"

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def view(self, index: int, *, protocol: Protocol, size: Size, spec: ViewSpec) -> tuple[Tensor, int]:
        """One normalised image ``(C, height, width)``, float32, and its label; of its own size if ``native``.

        Raises:
            OSError: If the image cannot be read.
        """

    def path(self, index: int) -> str:
        """What to call an image in a message."""
        return f"image {index} of {self.name}"

    def subset(self, limit: int | None, seed: int) -> list[int]:
        """Indices to evaluate, see :func:`subset`."""
        return subset(len(self), limit, seed)


def subset(total: int, limit: int | None, seed: int) -> list[int]:
    """All indices below ``total``, or a seeded random ``limit`` of them, ascending; a smaller choice is in a larger."""
    if limit is None or limit >= total:
        return list(range(total))
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    return sorted(order[:limit].tolist())


class EmbeddedSource(Source):
    """The digits that ship inside a package: 24 x 24 pixels on black.

    Args:
        name: ``digits`` or ``mnist``.
        split: ``test``, ``val`` for choices, or ``train``.
    """

    def __init__(self, name: str, split: Split = "test") -> None:
        from visionpe.data.digits import CLASSES, load_digits

        try:
            self.images, self.labels = load_digits(split, name)  # type: ignore[arg-type]
        except ImportError as error:
            raise InputError(f"--data {name}: {first_line(error)}; install the `data` extra") from None
        self.name, self.classes = name, len(CLASSES)
        self.fingerprint = hashlib.sha256(self.images.numpy().tobytes() + self.labels.numpy().tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.labels)

    def view(self, index: int, *, protocol: Protocol, size: Size, spec: ViewSpec) -> tuple[Tensor, int]:
        native = self.images[index].float()  # (1, 24, 24)
        if protocol != "canvas":  # they are square
            image = resize_images(native[None], size)[0].clamp(0, 255)
        else:
            image = resize_images(native[None], spec.trained)[0].clamp(0, 255)  # the identity for a model trained at 24
            image = place(image, size, spec.seed, index)
        return spec.normalise(image), int(self.labels[index])


class _Views(Dataset):
    """What the workers of a DataLoader run; an unreadable image comes back as its index and the reason."""

    def __init__(self, source: Source, indices: Sequence[int], protocol: Protocol, size: Size, spec: ViewSpec) -> None:
        self.source, self.indices = source, indices
        self.how: dict[str, Any] = {"protocol": protocol, "size": size, "spec": spec}

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int) -> tuple[Tensor | None, int, str]:
        index = self.indices[item]
        try:
            return (*self.source.view(index, **self.how), "")
        except MemoryError:
            raise
        except Exception as error:
            return None, index, error.reason if isinstance(error, PictureError) else first_line(error)


def _collate(
    items: list[tuple[Tensor | None, int, str]],
) -> tuple[Tensor | list[Tensor] | None, Tensor, list[tuple[int, str]]]:
    good = [(image, label) for image, label, _ in items if image is not None]
    broken = [(index, reason) for image, index, reason in items if image is None]
    images: Any = [image for image, _ in good] or None
    if images is not None and len({image.shape for image in images}) == 1:
        images = torch.stack(images)
    return images, torch.tensor([label for _, label in good]), broken


def batches(
    source: Source,
    *,
    protocol: Protocol,
    size: Size,
    spec: ViewSpec,
    indices: Sequence[int],
    batch_size: int,
    workers: int = 0,
    skip_corrupt: bool = False,
) -> Iterator[tuple[Any, Tensor, list[str]]]:
    """Show a set of images at one resolution.

    Args:
        source: The images.
        protocol, size, spec: How they are shown.
        indices: Which of them, in order.
        batch_size: Images a batch.
        workers: Processes that prepare images; 0 prepares them here.
        skip_corrupt: Leave unreadable images out instead of stopping at the first.

    Yields:
        Images ``(B, C, height, width)``, or a list of them where sizes differ,
        labels ``(B,)`` and the names of unreadable images that were left out.

    Raises:
        InputError: If an image cannot be read and ``skip_corrupt`` is False.
    """
    views = _Views(source, indices, protocol, size, spec)
    for images, labels, broken in DataLoader(
        views, batch_size=batch_size, num_workers=workers, collate_fn=_collate, shuffle=False
    ):
        if broken and not skip_corrupt:
            index, reason = broken[0]
            raise InputError(
                f"--data {source.name}: cannot read {source.path(index)} ({reason}); repair or remove it, or pass "
                "--skip-corrupt"
            )
        names = [source.path(index) for index, _ in broken]
        if images is not None:
            yield images, labels, names
        elif names:
            yield torch.empty(0), labels, names
