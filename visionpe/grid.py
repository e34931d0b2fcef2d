"""Where the tokens stand."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor

from visionpe.tracing import is_tracing


@dataclass(frozen=True)
class Grid:
    """Where the tokens of one sequence stand.

    Args:
        size: Tokens per axis, slowest first: ``(height, width)`` or ``(time, height, width)``. The tokens follow
            in row-major order.
        prefix: Tokens ahead of them that stand nowhere (class and register tokens).
        window: Window per axis if attention is windowed, else None.
        coords: Explicit coordinates ``(N, axes)`` or ``(B, N, axes)`` in token units, in the order of ``size``,
            where the tokens are not a full grid (dropped patches, sparse voxels). ``size`` is then their extent.
        signals: What else is known of the spatial tokens, colour and normal, ``(N, 3 k)`` or ``(B, N, 3 k)``.
        cloud: Which cloud each token belongs to, ``(N,)``, where several share a sequence; else None.
    """

    size: tuple[int, ...]
    prefix: int = 0
    window: tuple[int, ...] | None = None
    coords: Tensor | None = None
    signals: Tensor | None = None
    cloud: Tensor | None = None
    _kept: dict[Hashable, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def axes(self) -> int:
        return len(self.size)

    @property
    def num_spatial(self) -> int:
        """Tokens that stand somewhere."""
        return prod(self.size) if self.coords is None else self.coords.shape[-2]

    @property
    def num_tokens(self) -> int:
        return self.prefix + self.num_spatial

    @property
    def dense(self) -> bool:
        """True where the tokens fill the grid in row-major order."""
        return self.coords is None

    def axis_positions(
        self, *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
    ) -> list[Tensor]:
        """The positions 0, 1, 2, ... along each axis, one tensor an axis."""
        return [torch.arange(n, device=device, dtype=dtype) for n in self.size]

    def positions(self, *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """Coordinates of every spatial token, ``(N, axes)`` or ``(B, N, axes)``."""
        if self.coords is not None:
            return self.coords.to(device=device, dtype=dtype)
        axes = torch.meshgrid(*self.axis_positions(device=device, dtype=dtype), indexing="ij")
        return torch.stack(axes, dim=-1).flatten(0, -2)  # (N, axes)

    def keep(self, key: Hashable, build: Callable[[], Any]) -> Any:
        """What follows from these positions and no parameter: built once, and gone with this object.

        For irregular tokens, whose positions are those of one pass; of a full grid the encodings keep their own.
        """
        if is_tracing():
            return build()
        if key not in self._kept:
            self._kept[key] = build()
        return self._kept[key]
