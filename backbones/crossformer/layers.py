"""What is CrossFormer's own beside its groups: convolutions at several scales at once, and blocks that cool down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionpe.backbones.shared.arguments import MAX_PATCH
from visionpe.backbones.shared.block import WindowBlock
from visionpe.backbones.shared.images import check_images
from visionpe.checks import check_counts, shown
from visionpe.graphs import one_node
from visionpe.tracing import is_exporting, is_transformed, map_size


def check_kernels(name: str, kernels: Any, stride: int | None, dim: int) -> tuple[int, ...]:
    """Sides of the patches that are seen at once, pixels or tokens.

    Args:
        name: Of the keyword, for messages.
        kernels: One or more of them.
        stride: Step from one patch to the next; None for the first of them.
        dim: Channels of all together.

    Raises:
        TypeError, ValueError: If they are no sizes, their middles fall beside each other, or they do not share out the
            channels: one half, one quarter, and so on, the last two being equal.
    """
    kernels = check_counts(name, (kernels,) if isinstance(kernels, int) else kernels, None, 1, MAX_PATCH)
    stride = kernels[0] if stride is None else stride
    if any(kernel < stride or (kernel - stride) % 2 for kernel in kernels):
        raise ValueError(f"{name}={shown(kernels)} must be {stride} or more by an even number; allowed: {stride}, ...")
    if dim % 2 ** (len(kernels) - 1):
        raise ValueError(
            f"{name}={shown(kernels)} must share out {dim} channels, half by half; allowed: as many as {dim} is "
            "divisible by 2, and one more"
        )
    return kernels


class CrossScale(nn.ModuleList):
    """Convolutions of growing kernels around the same middles, side by side: the larger, the fewer channels.

    Source: CrossFormer, section 3.1 (CEL).

    Args:
        dim, dim_out: Channels before, and after of all together.
        kernels: Their sides.
        stride: From one middle to the next.
    """

    def __init__(self, dim: int, dim_out: int, kernels: Sequence[int], stride: int, **factory: Any) -> None:
        last = len(kernels) - 1
        widths = [dim_out // 2 ** min(i + 1, last) for i in range(len(kernels))]
        super().__init__(
            nn.Conv2d(dim, width, kernel, stride=stride, padding=(kernel - stride) // 2, **factory)
            for width, kernel in zip(widths, kernels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, dim, H, W)`` to ``(B, height, width, dim_out)``."""
        return torch.cat([conv(x) for conv in self], dim=1).permute(0, 2, 3, 1)


class CrossScaleEmbed(nn.Module):
    """The stem: patches of several sizes around the same middles, and a norm.

    Args:
        in_chans, dim: Channels of images and tokens.
        patch_sizes: Pixels; tokens stand as far apart as the first says.
        norm: Of the tokens.
    """

    def __init__(self, in_chans: int, dim: int, patch_sizes: Sequence[int], norm: nn.Module, **factory: Any) -> None:
        super().__init__()
        self.patch_size, self.in_chans = patch_sizes[0], in_chans
        self.projs = CrossScale(in_chans, dim, patch_sizes, self.patch_size, **factory)
        self.norm = norm

    def grid_size(self, img_size: Sequence[int]) -> tuple[int, int]:
        """Tokens along each axis of an image, pixels; what is left of it is no token, as published."""
        height, width = (n // self.patch_size for n in img_size)
        return height, width

    @one_node
    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, height, width, dim)``."""
        check_images(x, self.in_chans, self.projs[0], least=self.patch_size)
        if not is_transformed():  # `vmap` knows no memory formats
            x = x.contiguous(memory_format=torch.channels_last)  # or the norm would turn the larger map around
        return self.norm(self.projs(x))


class CrossScaleMerge(nn.Module):
    """Halves the map: a norm, and convolutions of several sizes of every other token.

    Args:
        dim, dim_out: Width before and after.
        kernels: Their sides, tokens.
        norm_layer: Of the tokens before.
    """

    def __init__(self, dim: int, dim_out: int, kernels: Sequence[int], norm_layer: Any, **factory: Any) -> None:
        super().__init__()
        self.norm = norm_layer(dim, **factory)
        self.reductions = CrossScale(dim, dim_out, kernels, 2, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, height, width, dim)`` to ``(B, height / 2, width / 2, dim_out)``, rounded up."""
        height, width = map_size(x)
        x = self.norm(x)
        # An exported graph serves every size, so it cannot branch on one.
        if is_exporting() or height % 2 or width % 2:
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        return self.reductions(x.permute(0, 3, 1, 2))


class CooledBlock(WindowBlock):
    """A block with a convolution and a norm behind it, beside no shortcut: what has summed up in that starts anew.

    Source: CrossFormer++, arXiv 2303.06908 (amplitude cooling layer).

    Args:
        dim: Width of the tokens.
        args, kwargs: See :class:`~visionpe.backbones.shared.block.WindowBlock`.
    """

    def __init__(self, dim: int, *args: Any, norm_layer: Any = nn.LayerNorm, **kwargs: Any) -> None:
        super().__init__(dim, *args, norm_layer=norm_layer, **kwargs)
        factory: dict[str, Any] = {name: kwargs.get(name) for name in ("device", "dtype")}
        self.ex_conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, **factory)
        self.ex_ln = norm_layer(dim, **factory)

    def finished(self, x: Tensor) -> Tensor:
        return self.ex_ln(self.ex_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
