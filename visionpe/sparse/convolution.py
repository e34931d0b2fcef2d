"""Convolution over the voxels around each voxel."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionpe.grid import Grid
from visionpe.sparse.cells import CellIndex


def offsets(axes: int, width: int = 3) -> list[tuple[int, ...]]:
    """Steps to the cells of a cube, the first axis fastest."""
    reach = width // 2
    return [step[::-1] for step in product(range(-reach, reach + 1), repeat=axes)]


class Neighbourhood:
    """Which voxels stand in the cube around each voxel; built once, for every convolution at that resolution.

    Args:
        coords: ``(N, 1 + axes)`` int64, batch index first.
        stride: Side of a cell, in the unit of ``coords``.
        width: Of the cube, cells; odd.
    """

    def __init__(self, coords: Tensor, stride: int = 1, width: int = 3) -> None:
        cells = coords.clone()
        cells[:, 1:] = coords[:, 1:].div(stride, rounding_mode="floor")
        index = CellIndex(cells, margin=width // 2)
        self.steps = offsets(coords.shape[1] - 1, width)
        self.pairs: list[tuple[Tensor, Tensor]] = []  # of each step: voxels, and their neighbours there
        for step in self.steps:
            found = index.find(cells + cells.new_tensor((0, *step)))
            here = (found >= 0).nonzero()[:, 0]
            self.pairs.append((here, found[here]))


def cells_around(grid: Grid, width: int = 3) -> Neighbourhood:
    """The neighbourhood of the voxels of a grid with ``coords`` in cells and ``cloud``, kept with the grid."""

    def build() -> Neighbourhood:
        assert grid.coords is not None
        assert grid.cloud is not None
        cells = grid.coords.floor().long() if grid.coords.is_floating_point() else grid.coords
        return Neighbourhood(torch.cat((grid.cloud[:, None], cells), dim=1), width=width)

    return grid.keep(("cells around", width), build)


CONVOLVE: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class SparseConv(nn.Module):
    """A convolution whose output stands where its input does.

    Args:
        dim, dim_out: Channels.
        axes: Of the coordinates.
        width: Of the kernel, cells; odd.
        bias: Add one number a channel.
        factory: ``device`` and ``dtype``.

    ``kernel`` is ``(width ** axes, dim, dim_out)``, the first axis fastest, a correlation: entry k is what the
    neighbour at ``offsets(axes, width)[k]`` is multiplied by. MinkowskiEngine stores it so.
    """

    def __init__(
        self, dim: int, dim_out: int, *, axes: int = 3, width: int = 3, bias: bool = False, **factory: Any
    ) -> None:
        super().__init__()
        self.axes, self.width = axes, width
        self.kernel = nn.Parameter(torch.empty(width**axes, dim, dim_out, **factory))
        self.bias = nn.Parameter(torch.empty(dim_out, **factory)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        bound = (self.kernel.shape[0] * self.kernel.shape[1]) ** -0.5
        nn.init.uniform_(self.kernel, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def dense(self) -> Tensor:
        """The kernel as PyTorch's convolutions of full maps take it: ``(dim_out, dim, width, ...)``."""
        kernel = self.kernel.unflatten(0, (self.width,) * self.axes)  # the first axis last
        return kernel.permute(self.axes + 1, self.axes, *reversed(range(self.axes)))

    def forward(self, x: Tensor, around: Neighbourhood | None = None) -> Tensor:
        """``(N, dim)`` to ``(N, dim_out)``; without neighbours full maps ``(B, dim, ...)``, zeros beyond the border."""
        if around is None:
            bias = None if self.bias is None else self.bias.to(x.dtype)
            return CONVOLVE[self.axes](x, self.dense().to(x.dtype), bias, padding=self.width // 2)
        out = x @ self.kernel[len(self.kernel) // 2]  # every voxel is its own neighbour
        for k, (here, there) in enumerate(around.pairs):
            if k != len(self.kernel) // 2 and len(here):
                out = out.index_add(0, here, x[there] @ self.kernel[k])
        return out if self.bias is None else out + self.bias
