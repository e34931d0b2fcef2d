"""GTA: geometric transforms of queries, keys, values and output."""

from __future__ import annotations

from math import pi
from typing import Any

import torch
from torch import Tensor, nn

from visionpe.cameras import Cameras, affine_inverse
from visionpe.checks import check_count, check_flag, check_number
from visionpe.encodings.geometric.base import BLOCK, CameraEncoding
from visionpe.encodings.rotary.base import RotaryEncoding
from visionpe.grid import Grid
from visionpe.policy.functions.positions import effective_length
from visionpe.ranges import MAX_DIM
from visionpe.registry import register_encoding


@register_encoding("gta")
class GeometricTransforms(CameraEncoding):
    """Some channels see through the poses of the cameras, others turn with the row and the column, the rest stays.

    Source: "GTA: A Geometry-Aware Attention Mechanism for Multi-View Transformers", arXiv 2310.10375, and its published
    code, with its representations SE(3) and SO(2). E is world to camera, ``[R s t; 0 1]``: in blocks of 4 channels
    ``q <- E^T q``, ``k <- E^-1 k``, ``v <- E^-1 v`` and ``output <- E output``. Of the pairs, two at a time, the first
    turns with the row and the second with the column, ``2 pi max_freq 2 ** (i + 1 - n)`` for the i-th of n, times a
    place from 0 to 1 across the image, in values and output too. Prefix tokens stay as they are.

    Its SO(3) (Wigner matrices of the rotation) and T(2) are left out. On tokens without cameras, as of single images,
    the pairs turn alone.

    Args:
        se3: Channels of a head that the cameras act on, a multiple of 4; default half of them.
        so2: Channels of a head that turn with the place, a multiple of 4; default all others.
        max_freq: Turns of the fastest pair across the image.
        scale: s, what translations are multiplied by: 1 takes them in the unit in which they are given.
        learned: ``scale`` is where a number for each block starts, which is learned; as published, from 0.01 on. It has
            no gradient on tokens without cameras.
        context: See :class:`~visionpe.encodings.rotary.base.RotaryEncoding`; coordinates do not move at random. Policy
            ``interpolate``, as published, spans 0 to 1 at every size.

    Raises:
        ValueError: If ``se3`` or ``so2`` is no multiple of 4 or together they are more than the head has, the grid has
            other than two axes, or an option is out of its range; in use, if cameras are of another number of scenes
            than tokens.
    """

    source = "GTA, arXiv 2310.10375"
    policies = ("interpolate", *(name for name in RotaryEncoding.policies if name != "interpolate"))
    in_tokens = False
    stacked = (("scale", 0),)

    def __init__(
        self,
        *,
        se3: int | None = None,
        so2: int | None = None,
        max_freq: float = 1.0,
        scale: float = 1.0,
        learned: bool = False,
        **context: Any,
    ) -> None:
        super().__init__(**context)
        half = self.head_dim // 2 // BLOCK * BLOCK
        seen = half if se3 is None else check_count("se3", se3, 0, MAX_DIM)
        placed = max(0, self.head_dim - seen) if so2 is None else check_count("so2", so2, 0, MAX_DIM)
        for name, value in (("se3", seen), ("so2", placed)):
            if value % BLOCK:
                raise ValueError(f"{name}={value} is no multiple of {BLOCK}; allowed: 0, 4, 8, ... channels of a head")
        if not 0 < seen + placed <= self.head_dim:
            raise ValueError(
                f"se3={seen} and so2={placed} are together {seen + placed} channels of the {self.head_dim} of a head; "
                f"allowed: 4 to {self.head_dim}"
            )
        self.seen, self.placed, self.still = seen, placed, self.head_dim - seen - placed
        self.max_freq = check_number("max_freq", max_freq, above=0, high=1e6)
        self.initial = check_number("scale", scale, -1e6, 1e6)
        check_flag("learned", learned)
        self.register_parameter("scale", nn.Parameter(torch.empty(self.depth, **self.factory)) if learned else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.scale is not None:
            nn.init.constant_(self.scale, self.initial)

    def frequencies(self, layer: int, device: torch.device) -> Tensor:
        number = self.placed // 4  # an axis
        ladder = self.max_freq * 2.0 ** (torch.arange(1, number + 1, device=device) - number)
        freqs = torch.zeros(2, 1, number, 2, device=device)
        freqs[0, 0, :, 1] = freqs[1, 0, :, 0] = ladder  # the column is told first, and has the second pair
        return freqs.flatten(-2)

    def slowest_pairs(self, freqs: Tensor, share: float) -> Tensor:
        number = freqs.shape[-1] // 2
        return torch.arange(freqs.shape[-1], device=freqs.device) // 2 < round(share * number)

    def places(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        units = [effective_length(m, n, self._rescaling) for n, m in zip(grid.size, self.grid_size)]
        return [2 * pi * (p + 0.5) / unit for p, unit in zip(self._axes(grid, device, dtype), units)]

    def units(self, grid: Grid) -> list[float]:
        return [2 * pi / n for n in self.grid_size]

    def camera_matrices(self, cameras: Cameras) -> tuple[Tensor, Tensor]:
        return cameras.extrinsics, affine_inverse(cameras.extrinsics)

    def _scaled_matrices(self, x: Tensor, grid: Grid, layer: int) -> tuple[Tensor, Tensor] | None:
        matrices = self._matrices(x, grid)
        if matrices is None or (self.scale is None and self.initial == 1):
            return matrices
        there, back = matrices
        shift = torch.zeros(BLOCK, BLOCK, device=x.device, dtype=there.dtype)
        shift[:3, 3] = 1
        by = self.initial if self.scale is None else self.scale[layer].to(there.dtype)
        factors = 1 + shift * (by - 1)
        return there * factors, back * factors

    def extra_repr(self) -> str:
        shares = f"se3={self.seen}, so2={self.placed}, max_freq={self.max_freq}, scale={self.initial}"
        return f"{shares}, learned={self.scale is not None}, {super().extra_repr()}"
