"""An mmpretrain dataset whose images are kept in memory."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from mmpretrain.datasets.base_dataset import BaseDataset
from PIL import Image


class InMemoryDataset(BaseDataset):
    """Images in memory: the pipeline receives ``img`` as a PIL image.

    So torchvision's transforms apply at once (``PILToNumpy`` leads on to mmcv's), and ``PackInputs`` makes a tensor of
    it. Records of the data list hold their ``index`` and their ``gt_label``.

    Args:
        **kwargs: Keywords of mmpretrain's ``BaseDataset``: ``pipeline``, ``indices``, ``test_mode``, ...
    """

    def __init__(self, **kwargs: Any) -> None:
        # Serialised annotations would cost a pickle an image to save memory that a few thousand records do not need.
        super().__init__(ann_file="", serialize_data=False, **kwargs)

    @abstractmethod
    def image(self, index: int) -> Image.Image:
        """One image."""

    def prepare_data(self, idx: int) -> Any:
        """Run the pipeline on image ``idx``.

        Args:
            idx: Index of the image, 0 to ``len(self) - 1``.

        Returns:
            What the pipeline returns: after ``PackInputs`` a dict of ``inputs`` and ``data_samples``.
        """
        # The base class would copy the record deeply, which costs more than the augmentation.
        record = self.data_list[idx]
        image = self.image(record["index"])
        shape = (image.height, image.width)
        results = {"img": image, "gt_label": record["gt_label"], "sample_idx": idx}
        return self.pipeline({**results, "img_shape": shape, "ori_shape": shape})
