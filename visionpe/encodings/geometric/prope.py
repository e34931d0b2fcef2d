"""PRoPE: cameras as relative positions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from visionpe.cameras import Cameras, affine_inverse, lifted, product
from visionpe.encodings.geometric.base import BLOCK, CameraEncoding, opposite
from visionpe.encodings.rotary.pairs import Layout
from visionpe.encodings.rotary.rope_axial import axial_frequencies
from visionpe.grid import Grid
from visionpe.ranges import check_base
from visionpe.registry import register_encoding


def projections(cameras: Cameras) -> Tensor:
    """World to image, ``P = [K 0; 0 1] [R t; 0 1]``, ``([B,] V, 4, 4)``; places run from -1/2 to 1/2.

    Where intrinsics are not known, world to camera.
    """
    if cameras.intrinsics is None:
        return cameras.extrinsics
    k = cameras.intrinsics.to(cameras.extrinsics.dtype)
    middle = k.new_tensor([[0.0, 0.0, 0.5], [0.0, 0.0, 0.5], [0.0, 0.0, 0.0]])
    return product(lifted(k - middle), cameras.extrinsics)


@register_encoding("prope")
class ProjectivePositions(CameraEncoding):
    """A half of the channels sees through the projections of the cameras, a quarter turns with x, a quarter with y.

    Source: "Cameras as Relative Positional Encoding" (PRoPE), arXiv 2507.10496, and its published code. P projects the
    world to the image: ``P = [K 0; 0 1] [R t; 0 1]``, K with the middle of an image of side 1 at the origin. In blocks
    of 4 channels ``q <- P^T q``, ``k <- P^-1 k``, ``v <- P^-1 v`` and ``output <- P output``, so that a token of view i
    sees one of view j through ``P_i P_j^-1``. In the other half pair
    i of the ``head_dim / 8`` of an axis turns by ``theta ** (-8 i / head_dim)`` radians a token, in values and output
    too; it turns the other way than in ``rope_axial``, as published. Prefix tokens stay as they are.

    Cameras without intrinsics have ``[R t; 0 1]`` for P. A skew in K counts, which the published code leaves out. On
    tokens without cameras, as of single images, the half of the places turns alone.

    Args:
        theta: Base of the frequencies.
        layout: Channel pairs, see :class:`~visionpe.encodings.rotary.base.RotaryEncoding`; as published by default.
        context: See :class:`~visionpe.encodings.rotary.base.RotaryEncoding`; coordinates do not move at random.

    Raises:
        ValueError: If the head dimension is no multiple of 8, the grid has other than two axes, or an option is out of
            its range; in use, if cameras are of another number of scenes than tokens.
    """

    source = "PRoPE, arXiv 2507.10496"

    def __init__(self, *, theta: float = 100.0, layout: Layout = "axis_half", **context: Any) -> None:
        super().__init__(layout=layout, **context)
        self.theta = check_base("theta", theta)
        if self.head_dim % (2 * BLOCK):
            raise ValueError(
                f"dim={self.dim} and num_heads={self.num_heads} give head dimension {self.head_dim}; {self.name} has "
                "half of it in blocks of 4, and needs a multiple of 8"
            )
        self.seen = self.placed = self.head_dim // 2

    def frequencies(self, layer: int, device: torch.device) -> Tensor:
        return axial_frequencies(self.theta, len(self.grid_size), self.placed // 2, device)

    def _compute(self, grid: Grid, layer: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        return opposite(super()._compute(grid, layer, device, dtype), self.layout)

    def camera_matrices(self, cameras: Cameras) -> tuple[Tensor, Tensor]:
        there = projections(cameras)
        return there, affine_inverse(there)

    def extra_repr(self) -> str:
        return f"theta={self.theta}, {super().extra_repr()}"
