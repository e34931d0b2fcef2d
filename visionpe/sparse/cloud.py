"""Clouds of voxels as a model takes them and as its levels give them back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from visionpe.checks import check_count
from visionpe.sparse.cells import check_cells

# Colours and normals lie in -1..1; what is far outside was never scaled.
FAR = 8.0
# How far a position may stand outside of its cell, in cells: what rounding moves.
SLACK = 0.01


def shown_row(row: Tensor) -> str:
    return f"({', '.join(f'{n:.6g}' for n in row.tolist())})"


@dataclass(frozen=True)
class Voxels:
    """The occupied voxels of a batch of clouds, one row each, the rows of a cloud together.

    Args:
        features: ``(N, channels)``.
        coords: ``(N, 1 + axes)``: the cloud, in ascending order, then the lower corner of the cell in finest voxels,
            whole numbers that may be negative.
        signals: ``(N, axes + 3 k)``: where in its cell the voxel stands, in finest voxels, then colour and normal
            where there are any, in -1..1. A column with the cloud may stand ahead of them, as in Swin3D's own code.
        stride: Side of a cell, finest voxels.

    Raises:
        TypeError: If one of them is no tensor.
        ValueError: If the numbers of rows differ or the columns of ``signals`` are not of this form.
    """

    features: Tensor
    coords: Tensor
    signals: Tensor
    stride: int = 1

    def __post_init__(self) -> None:
        rows = {"features": self.features, "coords": self.coords, "signals": self.signals}
        check_count("stride", self.stride)
        for name, t in rows.items():
            if not isinstance(t, Tensor) or t.dtype.is_complex:
                what = t.dtype if isinstance(t, Tensor) else type(t).__name__
                raise TypeError(f"{name} are {what}; allowed: a tensor (N, columns)")
            if t.ndim != 2:
                raise ValueError(f"{name} must be (N, columns), got {tuple(t.shape)}")
        if len({len(t) for t in rows.values()}) > 1:
            given = ", ".join(f"{len(t)} {name}" for name, t in rows.items())
            raise ValueError(f"features, coords and signals must have one row a voxel; got {given}")
        columns, axes = self.signals.shape[1], self.axes
        if columns > axes and (columns - axes) % 3 == 1:  # the cloud once more
            object.__setattr__(self, "signals", self.signals[:, 1:])
        elif columns < axes or (columns - axes) % 3:
            raise ValueError(
                f"signals has {columns} columns; allowed: {axes} for the position, 3 more each for colour and normal"
            )

    @classmethod
    def of(cls, x: Any) -> Voxels:
        """From voxels or a tuple ``(features, coords, signals)``."""
        if isinstance(x, cls):
            return x
        if not isinstance(x, (tuple, list)) or len(x) not in (3, 4):
            raise TypeError(f"voxels={type(x).__name__}; allowed: Voxels, or (features, coords, signals)")
        return cls(*x)

    @property
    def axes(self) -> int:
        return self.coords.shape[1] - 1

    @property
    def cloud(self) -> Tensor:
        """The cloud of each voxel ``(N,)``."""
        return self.coords[:, 0]

    @property
    def positions(self) -> Tensor:
        """Where each voxel stands, ``(N, axes)`` in finest voxels."""
        return self.signals[:, : self.axes]

    def __len__(self) -> int:
        return len(self.coords)

    def checked(self) -> Voxels:
        """The same with int64 coordinates, after every check that needs to look at the numbers.

        Raises:
            TypeError: If ``signals`` have too few digits for positions.
            ValueError: If coordinates are not those of clouds (see :func:`visionpe.sparse.check_cells`), signals or
                features hold NaN or infinity, colours or normals were never scaled to -1..1, or positions do not lie
                in their cells (they are in another unit).
        """
        coords = check_cells(self.coords)
        if self.signals.dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f"signals are {self.signals.dtype}; allowed: torch.float32, torch.float64: positions need their digits"
            )
        for name, t in (("features", self.features), ("signals", self.signals)):
            if not t.isfinite().all():
                raise ValueError(f"{name} hold NaN or infinity in {int((~t.isfinite()).any(1).sum())} rows")
        self._check_positions(coords)
        colours = self.signals[:, self.axes :]
        if colours.numel() and colours.abs().max() > FAR:
            raise ValueError(
                f"signals reach {float(colours.abs().max()):.4g} in the columns of colour and normal; allowed: -1 to 1 "
                "(a byte / 127.5 - 1)"
            )
        return replace(self, coords=coords)

    def _check_positions(self, coords: Tensor) -> None:
        inside = self.positions.double() - coords[:, 1:].double()
        spare = SLACK * self.stride + 4 * torch.finfo(self.signals.dtype).eps * self.positions.abs().double()
        outside = ((inside < -spare) | (inside > self.stride + spare)).any(1)
        if outside.any():
            row = int(outside.nonzero()[0, 0])
            raise ValueError(
                f"signals: {int(outside.sum())} positions lie outside of their cells, the first at "
                f"{shown_row(self.positions[row])} of the cell at {shown_row(coords[row, 1:])}; allowed: positions in "
                "finest voxels, as coords are"
            )

    def to(self, *args: Any, **kwargs: Any) -> Voxels:
        """On another device; a dtype applies to the features alone, positions need their digits."""
        device = torch.empty(0, device=self.features.device).to(*args, **kwargs).device
        return replace(
            self,
            features=self.features.to(*args, **kwargs),
            coords=self.coords.to(device),
            signals=self.signals.to(device),
        )

    def split(self, x: Tensor) -> list[Tensor]:
        """Rows of voxels ``(N, ...)``, cloud by cloud."""
        return list(x.split(torch.bincount(self.cloud.long()).tolist()))

    @classmethod
    def collate(cls, clouds: Sequence[Voxels]) -> Voxels:
        """One batch of clouds that hold one cloud each.

        Raises:
            ValueError: If there is none.
        """
        if not clouds:
            raise ValueError("clouds: none given; allowed: one or more")
        coords = [torch.cat((torch.full_like(c.coords[:, :1], i), c.coords[:, 1:]), 1) for i, c in enumerate(clouds)]
        features, signals = (torch.cat([getattr(c, name) for c in clouds]) for name in ("features", "signals"))
        return cls(features, torch.cat(coords), signals, clouds[0].stride)
