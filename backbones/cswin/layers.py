"""What changes the resolution in CSWin: convolutions, each with a norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from visionpe.backbones.shared.images import check_images
from visionpe.graphs import one_node
from visionpe.tracing import is_transformed


class ConvEmbed(nn.Module):
    """The stem: overlapping patches, 7 x 7 pixels every 4 where a token stands for 4, and a norm.

    Args:
        in_chans, dim: Channels of images and tokens.
        patch_size: Pixels per token along each axis.
        norm_layer: Of the tokens.
    """

    def __init__(self, in_chans: int, dim: int, patch_size: int, norm_layer: Any, **factory: Any) -> None:
        super().__init__()
        self.patch_size = patch_size
        kernel = 2 * patch_size - 1
        self.proj = nn.Conv2d(in_chans, dim, kernel, stride=patch_size, padding=patch_size // 2, **factory)
        self.norm = norm_layer(dim, **factory)

    def grid_size(self, img_size: Sequence[int]) -> tuple[int, int]:
        """Tokens along each axis of an image, pixels."""
        patch = self.patch_size
        height, width = ((n + 2 * (patch // 2) - (2 * patch - 1)) // patch + 1 for n in img_size)
        return height, width

    @one_node
    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, height, width, dim)``."""
        check_images(x, self.proj.in_channels, self.proj, least=2 * self.patch_size - 1 - 2 * (self.patch_size // 2))
        if not is_transformed():  # `vmap` knows no memory formats
            x = x.contiguous(memory_format=torch.channels_last)  # or the norm would turn the larger map around
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class ConvMerge(nn.Module):
    """Halves the map: a 3 x 3 convolution of every other token, and a norm.

    Args:
        dim, dim_out: Width before and after.
        norm_layer: Of the tokens.
    """

    def __init__(self, dim: int, dim_out: int, norm_layer: Any, **factory: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim_out, 3, stride=2, padding=1, **factory)
        self.norm = norm_layer(dim_out, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, height, width, dim)`` to ``(B, height / 2, width / 2, dim_out)``, rounded up."""
        return self.norm(self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
