"""Convolutions that make tokens of images, and fewer tokens of maps, each with a norm behind it."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionpe.backbones.shared.images import check_images
from visionpe.backbones.shared.windows import Pair
from visionpe.graphs import one_node
from visionpe.tracing import is_exporting, larger, number


@dataclass(frozen=True)
class Slide:
    """How a square kernel slides over a map.

    Args:
        kernel, stride, padding: Of a convolution, tokens (of images: pixels).
    """

    kernel: int
    stride: int
    padding: int = 0

    def size(self, size: Pair) -> Pair:
        """Height and width of what comes out; what is left below and right is cut off, but for the first place."""
        height, width = (larger((n + 2 * self.padding - self.kernel) // self.stride + 1, 1) for n in size)
        return height, width

    def padded(self, x: Tensor) -> Tensor:
        """The map ``(B, C, height, width)``, with zeros below and right where it is smaller than the kernel."""
        short = [larger(self.kernel - 2 * self.padding - number(n), 0) for n in x.shape[2:]]
        # An exported graph serves every size, so it cannot branch on one.
        return F.pad(x, (0, short[1], 0, short[0])) if is_exporting() or any(short) else x


class ConvEmbed(nn.Module):
    """Map to a smaller map: a convolution and a norm.

    Args:
        in_chans, dim: Channels before and after.
        slide: How the kernel slides.
        norm: Of the tokens.
    """

    def __init__(self, in_chans: int, dim: int, slide: Slide, norm: nn.Module, **factory: Any) -> None:
        super().__init__()
        self.slide = slide
        self.proj = nn.Conv2d(in_chans, dim, slide.kernel, slide.stride, slide.padding, **factory)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """``(B, height, width, in_chans)`` to ``(B, height', width', dim)``."""
        x = self.proj(self.slide.padded(x.permute(0, 3, 1, 2)))
        return self.norm(x.permute(0, 2, 3, 1))


class ImageEmbed(ConvEmbed):
    """The same of images, the first layer of a pyramid."""

    @property
    def patch_size(self) -> int | None:
        """Pixels per token, of which images may be any multiple; None where later stages would cut more off."""
        return self.slide.stride if self.slide.padding else None

    @one_node
    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to a map ``(B, height, width, dim)``."""
        check_images(x, self.proj.in_channels, self.proj)
        return super().forward(x.permute(0, 2, 3, 1))


def draw_convolutions(module: nn.Module) -> None:
    """Draw convolutions anew as Twins and SegFormer do: normal, variance 2 by the weights of a channel, biases zero."""
    for each in module.modules():
        if isinstance(each, nn.Conv2d):
            weights = each.kernel_size[0] * each.kernel_size[1] * each.out_channels // each.groups
            with torch.no_grad():
                each.weight.normal_(0, sqrt(2 / weights))
                if each.bias is not None:
                    each.bias.zero_()
