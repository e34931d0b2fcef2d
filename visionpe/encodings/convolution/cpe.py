"""Conditional position encoding: a convolution between the blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from visionpe.base import PositionEncoding
from visionpe.checks import check_counts, check_flag, shown
from visionpe.encodings.convolution.layers import SizedConv2d, SizedConv3d
from visionpe.grid import Grid
from visionpe.policy.functions import CONVOLUTION_POLICIES
from visionpe.ranges import check_kernel_size
from visionpe.registry import register_encoding
from visionpe.sparse import cells_around

# Adapters of other libraries look for `proj`, as the projection of attention is called, and mean one layer by it.
RENAMED = {"proj": "convs"}
CONVS: dict[int, type[nn.Module]] = {2: SizedConv2d, 3: SizedConv3d}


@register_encoding("cpe")
class ConditionalPositionEncoding(PositionEncoding):
    """A depthwise convolution over the map of tokens, plus the identity, after the first block, or ahead of any.

    Source: "Conditional Positional Encodings for Vision Transformers", section 3.3 (the generator, PEG); zero padding
    at the border is what tells the tokens where they are. Prefix tokens pass by. On three axes it is a convolution of
    volumes, or of sparse voxels (a grid with ``coords`` in whole cells and ``cloud``), where empty cells are zero.

    Args:
        kernel_size: Side of the kernel in tokens, odd.
        layers: Blocks after which a convolution stands, each with its own weights; ``"all"`` for every one.
        ahead: It stands ahead of these blocks instead, as in RMT (arXiv 2309.11523, where all have one).
        context: See :class:`~visionpe.base.PositionEncoding`. Policy ``extrapolate`` convolves the map as it is;
            ``interpolate`` stretches the kernel, so that it spans as much of the image as in training (a dilation
            where the ratio is whole), ``rescale(a)`` by the power a of that ratio; ``native`` convolves the map at
            the trained size, see :func:`~visionpe.policy.functions.convolve`. Sparse voxels have ``extrapolate`` alone.

    Raises:
        ValueError: If ``kernel_size`` is even, a layer does not exist, or there are neither two nor three axes, or with
            ``ahead`` other than two.
    """

    source = "CPVT, arXiv 2102.10882"
    irregular = True
    policies = CONVOLUTION_POLICIES
    takes_coords = False
    renamed = RENAMED

    def __init__(
        self,
        *,
        kernel_size: int = 3,
        layers: Sequence[int] | Literal["all"] = (0,),
        ahead: bool = False,
        **context: Any,
    ) -> None:
        super().__init__(**context)
        self.kernel_size = check_kernel_size(kernel_size)
        try:
            every = tuple(range(self.depth))
            self.layers = every if layers == "all" else check_counts("layers", layers, None, 0, self.depth - 1)
        except ValueError:
            allowed = f"0..{self.depth - 1}, whole numbers; or be 'all'"
            raise ValueError(f"layers={shown(layers)} must lie in {allowed}") from None
        # What stands ahead of the first block of a stage is added to what comes in, what stands ahead of the others
        # follows the block before.
        self.ahead = self.joins_every_block = check_flag("ahead", ahead)  # type: ignore[misc]
        if len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layers={shown(layers)} names a block twice; allowed: each of 0..{self.depth - 1} once")
        if len(self.grid_size) not in CONVS:
            raise ValueError(f"grid_size={self.grid_size}: cpe stands on two or three axes")
        if ahead and len(self.grid_size) != 2:
            raise ValueError(f"ahead=True with grid_size={self.grid_size}: allowed on two axes, on others False")
        conv: Any = CONVS[len(self.grid_size)]
        self.convs = nn.ModuleList(conv(self.dim, kernel_size, **self.factory) for _ in self.layers)

    def keep_blocks(self, count: int) -> None:
        for n, layer in enumerate(self.layers):
            if layer >= count:
                self.convs[n] = nn.Identity()  # the others keep their names

    def no_weight_decay(self) -> set[str]:
        return set()  # an ordinary convolution

    def add(self, x: Tensor, grid: Grid) -> Tensor:
        """Ahead of the first block, if that is asked for; prefix tokens are not among these."""
        return self._convolved(x, Grid(grid.size) if grid.dense else grid, 0) if self.ahead else x

    def refine(self, x: Tensor, grid: Grid, *, layer: int = 0) -> Tensor:
        return self._convolved(x, grid, layer + self.ahead)

    def _convolved(self, x: Tensor, grid: Grid, layer: int) -> Tensor:
        """The tokens, with what the convolution of a block adds where it has one."""
        if layer not in self.layers:
            return x
        self.check_axes(grid)
        conv: Any = self.convs[self.layers.index(layer)]
        if grid.cloud is not None:
            return x + self._sparse(x, conv, grid)
        if not grid.dense:
            raise ValueError("cpe needs the full map of tokens: its convolution is undefined where patches are dropped")
        prefix, tokens = x[:, : grid.prefix], x[:, grid.prefix :]
        tokens = tokens.transpose(1, 2).unflatten(2, grid.size)  # (B, dim, [time,] height, width)
        tokens = tokens + conv(tokens, self.grid_size, self.main_policy)
        tokens = tokens.flatten(2).transpose(1, 2)
        return torch.cat((prefix, tokens), dim=1) if grid.prefix else tokens

    def _sparse(self, x: Tensor, conv: Any, grid: Grid) -> Tensor:
        """The same among sparse voxels: cells that hold none count as zero, like the border of a map."""
        if self.main_policy and self.main_policy.name != "extrapolate":
            raise ValueError(
                f"policy={self.policy!r} of cpe needs the full map of tokens, and sparse voxels have cells of their "
                "own; allowed: extrapolate"
            )
        return conv(x[0], self.grid_size, None, cells_around(grid, self.kernel_size))[None]
