"""Conditional position encoding: a convolution between the blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionpe.base import PositionEncoding
from visionpe.grid import Grid
from visionpe.registry import register_encoding
from visionpe.resize import POSITION_POLICIES
from visionpe.sparse import cells_around

CONVS: dict[int, tuple[type[nn.Module], Callable[..., Tensor]]] = {
    2: (nn.Conv2d, F.conv2d),
    3: (nn.Conv3d, F.conv3d),
}


@register_encoding("cpe")
class ConditionalPositionEncoding(PositionEncoding):
    """A depthwise convolution over the map of tokens, plus the identity, after the first block.

    Source: "Conditional Positional Encodings for Vision Transformers", section 3.3 (the generator, PEG); zero padding
    at the border is what tells the tokens where they are. Prefix tokens pass by. On three axes it is a convolution of
    volumes, or of sparse voxels (a grid with ``coords`` in whole cells and ``cloud``), where empty cells are zero.

    Args:
        kernel_size: Side of the kernel in tokens, odd.
        layers: Blocks after which a convolution stands, each with its own weights.
        context: See :class:`~visionpe.base.PositionEncoding`. Policy ``extrapolate`` convolves the map as it is;
            ``interpolate`` stretches the kernel, so that it spans as much of the image as in training (a dilation
            where the ratio is whole).

    Raises:
        ValueError: If ``kernel_size`` is even, a layer does not exist, or there are neither two nor three axes.
    """

    source = "CPVT, arXiv 2102.10882"
    irregular = True
    policies = POSITION_POLICIES
    takes_coords = False

    def __init__(self, *, kernel_size: int = 3, layers: Sequence[int] = (0,), **context: Any) -> None:
        super().__init__(**context)
        if kernel_size % 2 == 0 or kernel_size < 1:
            raise ValueError(f"kernel_size={kernel_size} must be odd and positive")
        if not layers or not all(0 <= layer < self.depth for layer in layers):
            raise ValueError(f"layers={tuple(layers)} must lie in 0..{self.depth - 1}")
        self.kernel_size, self.layers = kernel_size, tuple(layers)
        if len(self.grid_size) not in CONVS:
            raise ValueError(f"grid_size={self.grid_size}: cpe stands on two or three axes")
        conv, _ = CONVS[len(self.grid_size)]
        self.proj = nn.ModuleList(
            conv(self.dim, self.dim, kernel_size, padding=kernel_size // 2, groups=self.dim, **self.factory)
            for _ in self.layers
        )

    def no_weight_decay(self) -> set[str]:
        return set()  # an ordinary convolution

    def refine(self, x: Tensor, grid: Grid, *, layer: int = 0) -> Tensor:
        if layer not in self.layers:
            return x
        conv: Any = self.proj[self.layers.index(layer)]
        if grid.cloud is not None:
            return x + self._sparse(x, conv, grid)
        if not grid.dense:
            raise ValueError("cpe needs the full map of tokens: its convolution is undefined where patches are dropped")
        prefix, tokens = x[:, : grid.prefix], x[:, grid.prefix :]
        tokens = tokens.transpose(1, 2).unflatten(2, grid.size)  # (B, dim, [time,] height, width)
        tokens = tokens + self._convolve(tokens, conv, grid)
        tokens = tokens.flatten(2).transpose(1, 2)
        return torch.cat((prefix, tokens), dim=1) if grid.prefix else tokens

    def _convolve(self, tokens: Tensor, conv: Any, grid: Grid) -> Tensor:
        if self.policy == "extrapolate":
            return conv(tokens)
        spread = [
            stretch(self.kernel_size, size, trained, conv.weight) for size, trained in zip(grid.size, self.grid_size)
        ]
        weight = conv.weight  # (dim, 1, kernel_size, kernel_size)
        for axis, taps in enumerate(spread, start=2):
            weight = torch.tensordot(weight, taps, dims=([axis], [1])).movedim(-1, axis)  # 2 reach + 1 along it
        padding = [s.shape[0] // 2 for s in spread]
        return CONVS[len(spread)][1](tokens, weight, conv.bias, padding=padding, groups=self.dim)

    def _sparse(self, x: Tensor, conv: Any, grid: Grid) -> Tensor:
        """The same among sparse voxels: cells that hold none count as zero, like the border of a map."""
        width = self.kernel_size
        around = cells_around(grid, width)
        tokens, weight = x[0], conv.weight[:, 0].to(x.dtype)  # (N, dim), (dim, width, width, width)
        out = conv.bias.to(x.dtype).expand_as(tokens)
        for step, (here, there) in zip(around.steps, around.pairs):
            tap = weight[(slice(None), *(n + width // 2 for n in step))]
            out = out.index_add(0, here, tokens[there] * tap)
        return out[None]


def stretch(kernel_size: int, size: int, trained: int, like: Tensor) -> Tensor:
    """How the taps of a kernel spread over the tokens when a step is ``size / trained`` tokens long.

    A tap that falls between two tokens is shared between them linearly, so that an integer ratio is a dilation and
    the ratio one is the identity.

    Returns:
        ``(2 reach + 1, kernel_size)``, reach the whole tokens that the stretched kernel needs on either side.
    """
    half = kernel_size // 2
    reach = -(-half * size // trained)  # rounded up
    wide = torch.promote_types(like.dtype, torch.float32)
    offsets = torch.arange(2 * reach + 1, device=like.device, dtype=wide) - reach
    taps = (torch.arange(kernel_size, device=like.device, dtype=wide) - half) * size / trained
    return (1 - (offsets[:, None] - taps).abs()).clamp(min=0).to(like.dtype)
