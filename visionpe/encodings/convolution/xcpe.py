"""Enhanced conditional position encoding: a full convolution ahead of every block."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from visionpe.base import PositionEncoding
from visionpe.checks import check_count
from visionpe.encodings.convolution.cpe import CONVS
from visionpe.grid import Grid
from visionpe.ranges import MAX_DEPTH, check_kernel_size
from visionpe.registry import register_encoding
from visionpe.sparse import SparseConv, cells_around


class Generator(nn.Module):
    """A convolution over the map, a linear layer, a norm.

    Args:
        dim: Width of the tokens.
        kernel_size: Side of the kernel in tokens.
        axes: Of the map.
        factory: ``device`` and ``dtype``.
    """

    def __init__(self, dim: int, kernel_size: int, axes: int, **factory: Any) -> None:
        super().__init__()
        self.conv = SparseConv(dim, dim, axes=axes, width=kernel_size, bias=True, **factory)
        self.linear = nn.Linear(dim, dim, **factory)
        self.norm = nn.LayerNorm(dim, eps=1e-5, **factory)
        self.width = kernel_size

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """Spatial tokens ``(B, N, dim)`` to what is added to them."""
        if grid.cloud is not None:
            return self.norm(self.linear(self.conv(x[0], cells_around(grid, self.width))))[None]
        maps = x.transpose(1, 2).unflatten(2, grid.size)  # (B, dim, [time,] height, width)
        return self.norm(self.linear(self.conv(maps).flatten(2).transpose(1, 2)))


@register_encoding("xcpe")
class EnhancedConditionalEncoding(PositionEncoding):
    """Ahead of every block: a convolution over all channels, a linear layer and a norm, plus the identity.

    Source: Point Transformer V3, arXiv 2312.10035, section 4.2 (xCPE), among sparse voxels (a grid with ``coords`` and
    ``cloud``), where empty cells are zero. On images it is a convolution of the map. Prefix tokens pass by.

    Args:
        kernel_size: Side of the kernel in tokens, odd.
        context: See :class:`~visionpe.base.PositionEncoding`.

    Raises:
        ValueError: If ``kernel_size`` is even, or there are neither two nor three axes.
    """

    source = "PTv3, arXiv 2312.10035"
    irregular = True
    takes_coords = False
    joins_every_block = True

    def __init__(self, *, kernel_size: int = 3, **context: Any) -> None:
        super().__init__(**context)
        self.kernel_size = check_kernel_size(kernel_size)
        axes = len(self.grid_size)
        if axes not in CONVS:
            raise ValueError(f"grid_size={self.grid_size}: xcpe stands on two or three axes")
        self.layers = nn.ModuleList(
            Generator(self.dim, self.kernel_size, axes, **self.factory) for _ in range(self.depth)
        )

    def keep_blocks(self, count: int) -> None:
        self.layers = self.layers[: check_count("count", count, 1, MAX_DEPTH)]

    def no_weight_decay(self) -> set[str]:
        return set()  # ordinary layers

    def add(self, x: Tensor, grid: Grid) -> Tensor:
        return self._told(0, x, grid)

    def refine(self, x: Tensor, grid: Grid, *, layer: int = 0) -> Tensor:
        """Ahead of the next block, if there is one."""
        if layer + 1 >= len(self.layers):
            return x
        prefix, tokens = x[:, : grid.prefix], x[:, grid.prefix :]
        tokens = self._told(layer + 1, tokens, grid)
        return torch.cat((prefix, tokens), dim=1) if grid.prefix else tokens

    def _told(self, layer: int, x: Tensor, grid: Grid) -> Tensor:
        """Spatial tokens ahead of a block."""
        self.check_axes(grid)
        if not grid.dense and grid.cloud is None:
            raise ValueError("xcpe needs the full map of tokens: a convolution is undefined where patches are dropped")
        return x + self.layers[layer](x, grid)
