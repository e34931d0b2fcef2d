"""One resolution of a batch of clouds: its voxels, and what is worked out about them once for all blocks."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from visionpe.grid import Grid
from visionpe.opaque import opaque
from visionpe.sparse import Neighbourhood, SparseWindows, Voxels, cells_around, coarsen, nearest
from visionpe.sparse.cells import grouped

V = TypeVar("V")


@opaque
@dataclass(frozen=True)
class Packed:
    """Windows of similar occupancy, padded to one length.

    Args:
        windows, length: How many, and of how many voxels, padding included.
        grid: Where they stand, and colour and normal.
        mask: True where a voxel stands, ``(windows, 1, 1, length)``; None where there is no padding.
    """

    windows: int
    length: int
    grid: Grid
    mask: Tensor | None


class Parts(Protocol):
    """A way to cut a level into parts among whose voxels there is attention."""

    packs: Sequence[Packed]

    def split(self, x: Tensor) -> list[Tensor]:
        """``(N, ...)`` to parts, ``(parts, length, ...)`` for each pack."""

    def join(self, parts: list[Tensor]) -> Tensor:
        """Parts back to ``(N, ...)``."""


class SparsePartition:
    """One partition of a level into windows, and the way of the voxels into them and back.

    Args:
        level: The level.
        window: Side, cells.
        shifted: Whether the windows are moved by half of it.
    """

    def __init__(self, level: Level, window: int, shifted: bool) -> None:
        voxels = level.voxels
        plan = SparseWindows(voxels.coords, voxels.positions, window=window, stride=voxels.stride, shifted=shifted)
        others = voxels.signals[:, voxels.axes :]
        self.packs = [
            Packed(
                bucket.rows.shape[0],
                bucket.rows.shape[1],
                Grid((window,) * voxels.axes, coords=bucket.places, signals=others[bucket.rows], known="finite"),
                None if bucket.mask.all() else bucket.mask[:, None, None],
            )
            for bucket in plan.buckets
        ]
        self.rows = torch.cat([bucket.rows.flatten() for bucket in plan.buckets])  # of every place
        self.filled = torch.cat([bucket.mask.flatten() for bucket in plan.buckets])
        places = self.filled.nonzero()[:, 0]
        self.place = torch.empty_like(places)  # of every row
        self.place[self.rows[places]] = places

    def split(self, x: Tensor) -> list[Tensor]:
        """``(N, ...)`` to windows, ``(windows, length, ...)`` for each pack."""
        spread = _Spread.apply(x, self)
        counts = [pack.windows * pack.length for pack in self.packs]
        return [part.unflatten(0, (p.windows, p.length)) for part, p in zip(spread.split(counts), self.packs)]

    def join(self, parts: list[Tensor]) -> Tensor:
        """Windows back to ``(N, ...)``."""
        return _Collect.apply(torch.cat([part.flatten(0, 1) for part in parts]), self)


class _Spread(torch.autograd.Function):
    """Rows to places. What the padding holds reaches no output, so gradients come from filled places alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cut: SparsePartition) -> Tensor:
        ctx.cut = cut
        return x.index_select(0, cut.rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _Collect.apply(grad, ctx.cut), None


class _Collect(torch.autograd.Function):
    """Places to rows: the inverse."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cut: SparsePartition) -> Tensor:
        ctx.cut = cut
        return x.index_select(0, cut.place)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        spread = _Spread.apply(grad, ctx.cut)
        return spread * ctx.cut.filled.view(-1, *[1] * (grad.ndim - 1)), None


class Level:
    """Voxels of one resolution; partitions and neighbours are worked out when they are first asked for.

    Args:
        voxels: The voxels; their features are not looked at.
        cloud_size: Side of the clouds at training in cells of this level, from which absolute encodings measure.
    """

    def __init__(self, voxels: Voxels, cloud_size: int) -> None:
        self.voxels, self.cloud_size = voxels, cloud_size
        self._kept: dict[Hashable, Any] = {}
        cloud, stride = voxels.cloud, voxels.stride
        clouds = int(cloud[-1]) + 1
        index = cloud[:, None].expand(-1, voxels.axes)
        low = voxels.coords.new_zeros(clouds, voxels.axes).scatter_reduce(
            0, index, voxels.coords[:, 1:], "amin", include_self=False
        )
        # From the lowest corner of each cloud, so that moving a cloud changes nothing.
        size, corner = (cloud_size,) * voxels.axes, low[cloud]
        inside = (voxels.coords[:, 1:] - corner).to(voxels.positions.dtype)
        within = voxels.positions - voxels.coords[:, 1:].to(voxels.positions.dtype)
        self.places = Grid(size, coords=(inside + within) / stride, cloud=cloud, known="finite")
        cells = voxels.coords[:, 1:].div(stride, rounding_mode="floor")
        self.cells = Grid(size, coords=cells, cloud=cloud, known="finite")

    def cut(self, window: int, shifted: bool) -> SparsePartition:
        """The partition into windows of that many cells."""
        return self.keep(("cut", window, shifted), lambda: SparsePartition(self, window, shifted))

    def keep(self, key: Hashable, build: Callable[[], V]) -> V:
        """What ``build()`` makes, once for this level and key."""
        if key not in self._kept:
            self._kept[key] = build()
        return self._kept[key]

    @property
    def around(self) -> Neighbourhood:
        """The 27 cells around each voxel."""
        return self.cells_within(3)

    def cells_within(self, width: int) -> Neighbourhood:
        """The cells of a cube around each voxel, so many a side."""
        return cells_around(self.cells, width)

    def holding(self, features: Tensor) -> Voxels:
        """The voxels with other features."""
        return replace(self.voxels, features=features)

    def nearest(self, other: Level, k: int) -> tuple[Tensor, Tensor]:
        """For every voxel of ``other`` the k nearest voxels here: rows and distances ``(M, k)``."""
        side = max(self.voxels.stride, other.voxels.stride)
        own, its = self.voxels, other.voxels
        return nearest(own.positions, own.cloud, its.positions, its.cloud, k, cell=float(side))


def coarser(level: Level, stride: int) -> Level:
    """The next level: cells of ``stride`` of this one's, each with the signals of one of its voxels."""
    voxels = level.voxels
    side = voxels.stride * stride
    coords, signals, rows = coarsen(voxels.coords, voxels.signals, side)
    next_ = type(voxels)(voxels.features[rows], coords, signals, side)
    return Level(next_, max(1, -(-level.cloud_size // stride)))


def groups(level: Level, coarse: Level) -> Tensor:
    """The voxel of a coarser level in whose cell each voxel stands: rows ``(N,)``."""
    corner = level.voxels.coords.clone()
    corner[:, 1:] = corner[:, 1:].div(coarse.voxels.stride, rounding_mode="floor")
    group, _ = grouped(corner)  # by first appearance, as the coarse voxels are
    return group


def largest_of_groups(x: Tensor, group: Tensor, number: int) -> Tensor:
    """The largest of each channel among the rows of a group: ``(N, dim)`` to ``(number, dim)``."""
    index = group[:, None].expand_as(x)
    return x.new_zeros(number, x.shape[1]).scatter_reduce(0, index, x, "amax", include_self=False)
