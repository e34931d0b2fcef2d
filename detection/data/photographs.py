"""Photographs by name as an mmpretrain dataset, in memory."""

from __future__ import annotations

from typing import Any, Literal

from mmengine.registry import DATASETS
from PIL import Image

from visionpe.data.listed import Split
from visionpe.data.photographs import ROOT, load_photographs
from visionpe.detection.data.memory import InMemoryDataset
from visionpe.utils.pictures import open_picture


@DATASETS.register_module()
class PhotographsDataset(InMemoryDataset):
    """The photographs of :func:`visionpe.data.photographs.load_photographs`.

    The pipeline receives ``img`` as a PIL image, see :class:`~visionpe.detection.data.memory.InMemoryDataset`.

    Args:
        name: ``elpv`` or ``caltech101``.
        split: ``train``, ``val`` (for choices) or ``test`` (for results).
        root: Folder of the data sets that no package holds.
        short_side: Images are kept in memory with their shorter side at most so long, pixels; a third more than what
            the model is trained at serves, since crops are enlarged.
        mode: ``RGB``, or ``L`` for grey.
        **kwargs: Further keywords of mmpretrain's ``BaseDataset``: ``pipeline``, ``indices``, ``test_mode``, ...

    Raises:
        ValueError: If ``name`` or ``split`` is unknown.
        ImportError: If the package that holds the images is not installed.
        FileNotFoundError: If they are not there and cannot be downloaded.
    """

    def __init__(
        self,
        name: str,
        split: Split = "train",
        root: str = str(ROOT),
        short_side: int = 128,
        mode: Literal["L", "RGB"] = "RGB",
        **kwargs: Any,
    ) -> None:
        self.source, self.photographs = name, load_photographs(name, split, root)
        self.folder_to_idx = self.photographs.labels
        self.split, self.short_side, self.mode = split, short_side, mode
        self.images: dict[int, Image.Image] = {}
        super().__init__(metainfo={"classes": self.photographs.classes}, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return one record an image: its place, its file and its label."""
        return [
            {"index": index, "img_path": str(path), "gt_label": label}
            for index, (path, label) in enumerate(self.photographs.samples)
        ]

    def image(self, index: int) -> Image.Image:
        """One image, read at its first use."""
        if index not in self.images:
            image = open_picture(str(self.photographs.samples[index][0]), self.mode)
            share = self.short_side / min(image.size)
            size = max(1, round(image.width * share)), max(1, round(image.height * share))
            self.images[index] = image.resize(size, Image.Resampling.BICUBIC) if share < 1 else image
        return self.images[index]

    def extra_repr(self) -> list[str]:
        """Return the lines that describe the data in ``repr``."""
        return [f"Photographs: \t{self.photographs.name}", f"Split: \t{self.split}"]
