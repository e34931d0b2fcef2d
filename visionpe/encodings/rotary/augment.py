"""Coordinates that are moved at random in training."""

from __future__ import annotations

import weakref
from math import log

import torch
from torch import Tensor

from visionpe.checks import check_number
from visionpe.grid import Grid
from visionpe.tracing import is_tracing


class CoordinateAugmentation:
    """Shifts the coordinates of a whole forward pass, then stretches each axis, then scales all, at random.

    Source: DINOv3, section 3.2 (RoPE-box jittering) and its published code.

    Args:
        shift_coords: Each axis is shifted by up to this much, in the unit of the coordinates.
        jitter_coords: Each axis is stretched by a factor of up to this, log-uniform from its inverse.
        rescale_coords: All axes are scaled by a factor of up to this, likewise.

    Raises:
        ValueError: If a shift is below 0 or a factor below 1.
    """

    def __init__(self, shift_coords: float | None, jitter_coords: float | None, rescale_coords: float | None) -> None:
        for name, value, least in (
            ("shift_coords", shift_coords, 0),
            ("jitter_coords", jitter_coords, 1),
            ("rescale_coords", rescale_coords, 1),
        ):
            if value is not None and check_number(name, value, None, 1e6) < least:
                raise ValueError(f"{name}={value} is too small; allowed: {least} or more, or None")
        self.shift_coords, self.jitter_coords, self.rescale_coords = shift_coords, jitter_coords, rescale_coords
        self._draws: dict[int, Tensor] = {}  # of the forward passes under way

    @property
    def active(self) -> bool:
        return any(value is not None for value in (self.shift_coords, self.jitter_coords, self.rescale_coords))

    def __call__(self, coordinates: list[Tensor], grid: Grid) -> list[Tensor]:
        """The coordinates of each axis, moved."""
        scale, shift = self.draw(grid, coordinates[0].device, coordinates[0].dtype).unbind()
        return [(p + t) * s for p, s, t in zip(coordinates, scale, shift)]

    def draw(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Scale and shift of each axis, ``(2, axes)``, the same for all layers that are given this very grid.

        Every layer draws, even where the draw of the first one is used: a checkpointed layer that runs again in the
        backward pass must take as many random numbers as before.
        """
        shift = torch.zeros(grid.axes, device=device, dtype=dtype)
        scale = torch.ones(grid.axes, device=device, dtype=dtype)
        if self.shift_coords is not None:
            shift = torch.empty_like(shift).uniform_(-self.shift_coords, self.shift_coords)
        if self.jitter_coords is not None:
            scale = torch.empty_like(scale).uniform_(-log(self.jitter_coords), log(self.jitter_coords)).exp()
        if self.rescale_coords is not None:
            whole = torch.empty_like(scale[:1]).uniform_(-log(self.rescale_coords), log(self.rescale_coords))
            scale = scale * whole.exp()
        draw = torch.stack((scale, shift))
        if is_tracing():
            return draw
        if id(grid) not in self._draws:
            self._draws[id(grid)] = draw
            weakref.finalize(grid, self._draws.pop, id(grid), None)
        return self._draws[id(grid)].to(device, dtype)
