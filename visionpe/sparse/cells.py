"""Finding cells: rows of ``[batch, x, y, z]`` by sorted keys instead of a hash table."""

from __future__ import annotations

import torch
from torch import Tensor

INT32 = 2**31


def check_cells(cells: Tensor, name: str = "coords") -> Tensor:
    """Refuse what cannot be cells of clouds, one after the other.

    Args:
        cells: ``(N, 1 + axes)``: batch index, then whole coordinates, which may be negative.
        name: Of the argument, for the message.

    Returns:
        The cells as int64.

    Raises:
        TypeError: If they are no tensor of numbers.
        ValueError: If the shape is wrong, there is no row, a number is not whole or leaves int32, batch indices are
            negative or not in ascending order, or a cell stands there twice.
    """
    if not isinstance(cells, Tensor) or cells.dtype.is_complex or cells.dtype == torch.bool:
        what = cells.dtype if isinstance(cells, Tensor) else type(cells).__name__
        raise TypeError(f"{name} are {what}; allowed: a tensor of whole numbers (N, 1 + axes)")
    if cells.ndim != 2 or cells.shape[1] < 2:
        raise ValueError(f"{name} must be (N, 1 + axes), batch index first; got {tuple(cells.shape)}")
    if not len(cells):
        raise ValueError(f"{name} is empty; a cloud has at least one voxel")
    if cells.is_floating_point() and not torch.equal(cells, cells.round()):  # NaN too
        raise ValueError(f"{name} must be whole numbers; voxelize() makes them from positions")
    low, high = float(cells.min()), float(cells.max())  # beyond int64 a cast gives anything
    if abs(low) > 2 * INT32 or abs(high) > 2 * INT32:
        raise ValueError(f"{name} must lie in int32; got {low:g} to {high:g}")
    whole = cells.long()
    low, high = int(whole.min()), int(whole.max())
    if low < -INT32 or high >= INT32:
        raise ValueError(f"{name} must lie in int32; got {low} to {high}")
    batch = whole[:, 0]
    if batch[0] < 0 or (batch.diff() < 0).any():
        raise ValueError(f"{name}: batch indices must be 0 or more, in ascending order, the rows of a cloud together")
    spare = len(whole) - len(CellIndex(whole).keys.unique_consecutive())
    if spare:
        raise ValueError(f"{name} holds {spare} rows whose cell is there already; voxelize() keeps one point each")
    return whole


class CellIndex:
    """Which row stands at a cell.

    Keys number the cells of the box around all rows, the last axis fastest, so that cells side by side along it have
    keys side by side.

    Args:
        cells: ``(N, 1 + axes)`` int64, batch index first.
        margin: Cells around the box that have keys too, so that neighbours of its cells are not taken for others.

    Raises:
        ValueError: If the box has more than 2 ** 62 cells.
    """

    def __init__(self, cells: Tensor, margin: int = 0) -> None:
        self.low = cells.min(dim=0).values - margin
        self.low[0] += margin  # clouds have no neighbours
        extent = cells.max(dim=0).values - self.low + 1 + margin
        extent[0] -= margin
        number = 1
        for n in extent.tolist():
            number *= n
        if number > 2**62:
            raise ValueError(f"coords span {extent.tolist()} cells (batch first); allowed: 2 ** 62 in all")
        self.extent = extent
        self.keys, self.order = self.pack(cells).sort(stable=True)  # rows of a cell stay in order

    def pack(self, cells: Tensor) -> Tensor:
        """Keys of cells ``(..., 1 + axes)``, -1 outside of the box."""
        steps = cells - self.low
        inside = ((steps >= 0) & (steps < self.extent)).all(dim=-1)
        key = steps[..., 0]
        for axis in range(1, cells.shape[-1]):
            key = key * self.extent[axis] + steps[..., axis]
        return torch.where(inside, key, -1)

    def find(self, cells: Tensor) -> Tensor:
        """The first row at each cell ``(..., 1 + axes)``, -1 where there is none."""
        key = self.pack(cells)
        place = torch.searchsorted(self.keys, key).clamp(max=len(self.keys) - 1)
        return torch.where((self.keys[place] == key) & (key >= 0), self.order[place], -1)


def grouped(cells: Tensor) -> tuple[Tensor, Tensor]:
    """Which rows share a cell.

    Args:
        cells: ``(N, 1 + axes)`` int64.

    Returns:
        The group of every row ``(N,)``, numbered by first appearance, so that the clouds of a batch stay together;
        and the first row of each group ``(M,)``.
    """
    index = CellIndex(cells)
    _, inverse = torch.unique_consecutive(index.keys, return_inverse=True)  # of sorted rows
    group = torch.empty_like(inverse)
    group[index.order] = inverse
    number = int(inverse[-1]) + 1
    rows = torch.arange(len(cells), device=cells.device)
    first = torch.full((number,), len(cells), device=cells.device).scatter_reduce(0, group, rows, "amin")
    first, appearance = first.sort()
    rank = torch.empty_like(appearance)
    rank[appearance] = torch.arange(number, device=cells.device)
    return rank[group], first
