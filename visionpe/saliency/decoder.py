"""The saliency decoder: tokens in, a map eight times as large as their grid out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn


class SaliencyDecoder(nn.Module):
    """Three transposed convolutions that double the sides, each with batch norm and ReLU, then a 1x1 convolution.

    Args:
        dim: Channels of the tokens.
        channels: After each transposed convolution.
    """

    def __init__(self, dim: int, channels: Sequence[int] = (256, 128, 64)) -> None:
        super().__init__()
        widths = [dim, *channels]
        for i, (before, after) in enumerate(zip(widths, channels), 1):
            self.add_module(f"upconv{i}", nn.ConvTranspose2d(before, after, kernel_size=4, stride=2, padding=1))
            self.add_module(f"bn{i}", nn.BatchNorm2d(after))
        self.final_conv = nn.Conv2d(widths[-1], 1, kernel_size=1)
        self.steps = len(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Feature map ``(B, dim, H, W)`` to logits of saliency ``(B, 1, 8 H, 8 W)``."""
        for i in range(1, self.steps + 1):
            x = self.get_submodule(f"bn{i}")(self.get_submodule(f"upconv{i}")(x)).relu()  # (B, channels, 2 H, 2 W)
        return self.final_conv(x)


def decoder_arguments(arrays: Mapping[str, Tensor], dim: int) -> dict[str, Any]:
    """What :class:`SaliencyDecoder` has to be told to have the shapes of these arrays.

    Args:
        arrays: Its state dict.
        dim: Channels of the tokens.
    """
    names = sorted(name for name in arrays if re.fullmatch(r"upconv\d\.weight", name))
    return {"dim": dim, "channels": [arrays[name].shape[1] for name in names if arrays[name].ndim == 4]}
