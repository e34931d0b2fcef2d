"""What stands around attention in RMT: convolutions with batch norms, an MLP with one inside, and the head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import ClassifierHead, Mlp
from torch import Tensor, nn

from visionpe.backbones.shared.images import check_images
from visionpe.encodings.convolution.layers import SizedConv2d
from visionpe.graphs import one_node
from visionpe.tracing import is_transformed


class ConvStem(nn.Module):
    """Four convolutions of 3 x 3, of stride 2, 1, 2, 1, each with a batch norm: a token stands for 4 pixels.

    Args:
        in_chans, dim: Channels of images and tokens; half of the latter inside.
    """

    patch_size = 4

    def __init__(self, in_chans: int, dim: int, **factory: Any) -> None:
        super().__init__()
        widths, layers = (in_chans, dim // 2, dim // 2, dim, dim), []
        for i, stride in enumerate((2, 1, 2, 1)):
            conv = nn.Conv2d(widths[i], widths[i + 1], 3, stride=stride, padding=1, **factory)
            layers += [conv, nn.BatchNorm2d(widths[i + 1], **factory), nn.GELU()]
        self.layers = nn.Sequential(*layers[:-1])

    def grid_size(self, img_size: Sequence[int]) -> tuple[int, int]:
        """Tokens along each axis of an image, pixels."""
        height, width = (-(-n // self.patch_size) for n in img_size)
        return height, width

    @one_node
    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, height, width, dim)``, rounded up."""
        first: Any = self.layers[0]
        check_images(x, first.in_channels, first)
        if not is_transformed():  # `vmap` knows no memory formats
            x = x.contiguous(memory_format=torch.channels_last)
        return self.layers(x).permute(0, 2, 3, 1)


class Merge(nn.Module):
    """Halves the map: a 3 x 3 convolution of every other token, and a batch norm.

    Args:
        dim, dim_out: Width before and after.
    """

    def __init__(self, dim: int, dim_out: int, **factory: Any) -> None:
        super().__init__()
        self.reduction = nn.Conv2d(dim, dim_out, 3, stride=2, padding=1, **factory)
        self.norm = nn.BatchNorm2d(dim_out, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, height, width, dim)`` to ``(B, height / 2, width / 2, dim_out)``, rounded up."""
        return self.norm(self.reduction(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)


class ConvMlp(Mlp):
    """timm's MLP on a map ``(B, height, width, dim)``, with a depthwise 3 x 3 convolution, plus itself, inside."""

    def __init__(self, in_features: int, hidden_features: int, **options: Any) -> None:
        super().__init__(in_features, hidden_features, **options)
        factory: dict[str, Any] = {key: options.get(key) for key in ("device", "dtype")}
        self.conv = SizedConv2d(hidden_features, 3, **factory)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop1(self.act(self.fc1(x)))
        x = x + self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.drop2(self.fc2(self.norm(x)))


class ProjectedHead(ClassifierHead):
    """A projection with batch norm and SiLU ahead of pooling and classifier.

    Args:
        dim: Width of the last map.
        width: Of the projection.
        token_label: A second classifier for every token, whose largest logits are added by half.
        options: Of timm's head.
    """

    def __init__(self, dim: int, width: int, *, num_classes: int, token_label: bool = False, **options: Any) -> None:
        super().__init__(width, num_classes, **options)
        factory: dict[str, Any] = {key: options.get(key) for key in ("device", "dtype")}
        self.proj: nn.Module = nn.Linear(dim, width, **factory)
        self.norm: nn.Module = nn.BatchNorm2d(width, **factory)
        self.aux = nn.Linear(dim, num_classes, **factory) if token_label and num_classes else None

    def reset(self, num_classes: int, *args: Any, **options: Any) -> None:
        """A new classifier, or two, or none with 0."""
        super().reset(num_classes, *args, **options)
        if self.aux is not None:
            like: dict[str, Any] = {"device": self.aux.weight.device, "dtype": self.aux.weight.dtype}
            self.aux = nn.Linear(self.aux.in_features, num_classes, **like) if num_classes else None

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """``(B, height, width, dim)`` to logits ``(B, num_classes)``, or to pooled features."""
        if isinstance(self.proj, nn.Identity):  # dropped with the classifier
            return super().forward(x, pre_logits)
        projected = self.norm(self.proj(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        out = super().forward(F.silu(projected), pre_logits)
        if self.aux is None or pre_logits:
            return out
        return out + 0.5 * self.aux(x.flatten(1, 2)).amax(1)
