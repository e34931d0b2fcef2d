"""Windows of voxels, put together by how many voxels they hold."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from visionpe.checks import check_count
from visionpe.sparse.cells import grouped

# Windows up to each size are padded to one length: narrow steps where windows are small and many.
EDGES = (*range(2, 33, 2), *range(36, 65, 4), *range(72, 129, 8), *range(144, 1025, 16))
# Pairs of voxels that are computed together, padding included.
PAIRS = 2**17
# Fewer take longer to start on than to work out.
FEW_PAIRS = 2**13


@dataclass(frozen=True)
class Bucket:
    """Windows of similar occupancy, padded to one length.

    Args:
        rows: Voxels ``(windows, n)``; where there is padding, a voxel of the window.
        mask: True where there is a voxel ``(windows, n)``.
        places: Positions inside the window, in cells, ``(windows, n, axes)``.
    """

    rows: Tensor
    mask: Tensor
    places: Tensor


class SparseWindows:
    """A partition of voxels into windows; built once per resolution and shift, for all blocks that attend in it.

    Windows are anchored at the origin of the coordinates. Shifted, their borders lie ``window // 2`` cells lower.

    Args:
        coords: ``(N, 1 + axes)`` int64, batch index first, lower corners of cells in finest voxels.
        positions: Where in its cell a voxel stands, ``(N, axes)`` in finest voxels.
        window: Side, cells.
        stride: Side of a cell, finest voxels.
        shifted: Whether the windows are moved.
    """

    def __init__(
        self, coords: Tensor, positions: Tensor, *, window: int, stride: int = 1, shifted: bool = False
    ) -> None:
        check_count("window", window)
        check_count("stride", stride)
        side, shift = window * stride, (window // 2) * stride if shifted else 0
        cells = coords.clone()
        cells[:, 1:] = (coords[:, 1:] + shift).div(side, rounding_mode="floor")
        # Inside the window: absolute coordinates of several hundred would cost float32 five bits.
        anchor = cells[:, 1:] * side - shift
        inside = (coords[:, 1:] - anchor) + (positions - coords[:, 1:].to(positions.dtype))
        self.buckets = list(_buckets(cells, inside / stride))


def _merged(edges: Tensor, windows: Tensor) -> list[tuple[int, int]]:
    """First and last edge of each bucket: what is too little to be worth a bucket of its own joins the next one."""
    spans: list[tuple[int, int]] = []
    first = held = 0
    for at, (edge, count) in enumerate(zip(edges.tolist(), windows.tolist())):
        if not count:
            continue
        if held and (held + count) * edge**2 > FEW_PAIRS:
            spans.append((first, at - 1))
            first = at
            held = 0
        held += count
    spans.append((first, len(edges) - 1))
    return spans


def _buckets(cells: Tensor, places: Tensor) -> list[Bucket]:
    group, _ = grouped(cells)
    counts = torch.bincount(group)
    by_group = group.sort(stable=True).indices  # rows, window by window
    starts = counts.cumsum(0) - counts
    edges = torch.tensor(EDGES, device=cells.device)
    kind = torch.searchsorted(edges, counts)
    buckets = []
    for first, last in _merged(edges, torch.bincount(kind, minlength=len(EDGES))):
        windows = ((kind >= first) & (kind <= last)).nonzero()[:, 0]
        length = int(counts[windows].max())
        for some in windows.split(max(1, PAIRS // length**2)):
            column = torch.arange(length, device=cells.device)
            mask = column < counts[some, None]
            rows = by_group[starts[some, None] + torch.where(mask, column, 0)]
            buckets.append(Bucket(rows, mask, places[rows]))
    return buckets
