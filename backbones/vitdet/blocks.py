"""What windowed ViTs have besides timm's blocks: ViTDet's convolutions after a block, SAM's neck after the last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.layers import LayerNorm2d
from torch import Tensor, nn

from visionpe.backbones.shared.block import WindowBlock
from visionpe.backbones.shared.partition import Partition
from visionpe.composition import Composition


class ConvBottleneck(nn.Module):
    """Convolutions 1x1, 3x3, 1x1 through half the width around the map, with a residual; the identity at first.

    Source: "Exploring Plain Vision Transformer Backbones for Object Detection", section 3 (convolutional propagation).
    """

    def __init__(self, dim: int, **factory: Any) -> None:
        super().__init__()
        inner = dim // 2
        self.conv1 = nn.Conv2d(dim, inner, 1, bias=False, **factory)
        self.norm1 = LayerNorm2d(inner, eps=1e-6, **factory)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False, **factory)
        self.norm2 = LayerNorm2d(inner, eps=1e-6, **factory)
        self.conv3 = nn.Conv2d(inner, dim, 1, bias=False, **factory)
        self.norm3 = LayerNorm2d(dim, eps=1e-6, **factory)
        self.act = nn.GELU()
        for conv in (self.conv1, self.conv2, self.conv3):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.norm3.weight)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, height, width, dim)`` to the same."""
        y = x.permute(0, 3, 1, 2)  # (B, dim, height, width)
        y = self.act(self.norm1(self.conv1(y)))
        y = self.act(self.norm2(self.conv2(y)))
        return x + self.norm3(self.conv3(y)).permute(0, 2, 3, 1)


class ResidualWindowBlock(WindowBlock):
    """A window block with convolutions after it."""

    def __init__(self, dim: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(dim, *args, **kwargs)
        self.residual = ConvBottleneck(dim, device=kwargs.get("device"), dtype=kwargs.get("dtype"))

    def forward(self, x: Tensor, encoding: Composition, partitions: Sequence[Partition]) -> Tensor:
        """Map to map, both ``(B, height, width, dim)``."""
        return self.residual(super().forward(x, encoding, partitions))


def neck(dim: int, channels: int, **factory: Any) -> nn.Sequential:
    """SAM's neck: maps ``(B, dim, height, width)`` to ``(B, channels, height, width)``."""
    return nn.Sequential(
        nn.Conv2d(dim, channels, 1, bias=False, **factory),
        LayerNorm2d(channels, eps=1e-6, **factory),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False, **factory),
        LayerNorm2d(channels, eps=1e-6, **factory),
    )
