"""Patches of voxels along a curve, as parts for attention."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from visionpe.backbones.shared.voxel_level import Level, Packed
from visionpe.grid import Grid
from visionpe.sparse import Order
from visionpe.sparse.orders import rows_along
from visionpe.sparse.windows import PAIRS


def reach(patch_size: int) -> int:
    """How far apart two voxels of a patch are along an axis at most, cells, as the published tables assume."""
    return int((4 * patch_size) ** (1 / 3) * 2)


def cut_line(counts: list[int], patch_size: int) -> dict[int, list[int]]:
    """Where patches begin on the line of all clouds: length -> first places.

    A cloud of more voxels than a patch is cut from its beginning; its last patch reaches back into the one before, so
    that it is as long. A smaller cloud is one patch.
    """
    starts: dict[int, list[int]] = defaultdict(list)
    first = 0
    for count in counts:
        length = min(count, patch_size)
        if count:
            starts[length] += [*range(first, first + count - length, length), first + count - length]
        first += count
    return starts


def places_of(level: Level, patch_size: int, *, equal: bool = False) -> list[Tensor]:
    """Where patches stand on the line of all clouds, whatever the curve: ``(patches, length)`` each.

    Args:
        level: The level.
        patch_size: Voxels of a patch.
        equal: All patches are as short as the smallest cloud, as in the published code without flash attention.
    """
    cloud = level.voxels.cloud
    counts = [count for count in torch.bincount(cloud).tolist() if count]
    return [
        some[:, None] + torch.arange(length, device=cloud.device)
        for length, starts in cut_line(counts, min(patch_size, *counts) if equal else patch_size).items()
        for some in torch.tensor(starts, device=cloud.device).split(max(1, PAIRS // length**2))
    ]


class CurvePatches:
    """One partition of a level into patches along a curve, and the way of the voxels into them and back.

    Source: Point Transformer V3, arXiv 2312.10035, section 4.2.

    Args:
        level: The level, whose cells are known to fit into the curve.
        order: The curve.
        bits: Of a coordinate of this level, in cells.
        patch_size, equal: See :func:`places_of`.
    """

    def __init__(self, level: Level, order: Order, bits: int, patch_size: int, *, equal: bool = False) -> None:
        voxels = level.voxels
        cells = level.cells.coords
        assert cells is not None
        line = rows_along(cells, voxels.cloud, order, bits)  # the row at each place of the line
        others = voxels.signals[:, voxels.axes :]
        side = (reach(patch_size) + 1,) * voxels.axes
        self.packs: list[Packed] = []
        every: list[Tensor] = []
        for places in level.keep(("places", patch_size, equal), lambda: places_of(level, patch_size, equal=equal)):
            rows = line[places]  # (patches, length)
            inside = (cells[rows] - cells[rows].amin(1, keepdim=True)).to(voxels.signals.dtype)
            grid = Grid(side, coords=inside, signals=others[rows], known="finite")
            self.packs.append(Packed(*rows.shape, grid, None))
            every.append(rows)
        self.rows = torch.cat([rows.flatten() for rows in every])
        # A voxel that two patches hold takes its features from the first, into which it is cut.
        none = torch.full_like(line, len(self.rows))
        self.place = none.scatter_reduce(0, self.rows, torch.arange(len(self.rows), device=cells.device), "amin")

    def split(self, x: Tensor) -> list[Tensor]:
        """``(N, ...)`` to patches, ``(patches, length, ...)`` for each pack."""
        spread = x.index_select(0, self.rows)
        counts = [pack.windows * pack.length for pack in self.packs]
        return [part.unflatten(0, (p.windows, p.length)) for part, p in zip(spread.split(counts), self.packs)]

    def join(self, parts: list[Tensor]) -> Tensor:
        """Patches back to ``(N, ...)``."""
        return torch.cat([part.flatten(0, 1) for part in parts]).index_select(0, self.place)
