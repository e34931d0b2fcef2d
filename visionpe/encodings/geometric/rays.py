"""What every token sees: its ray through the world, or places along it, added to the token."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionpe.base import PositionEncoding
from visionpe.cameras import Cameras, affine_inverse, lifted
from visionpe.checks import check_choice, check_count, check_number
from visionpe.grid import Grid
from visionpe.precision import WideLinear, wide_dtype, without_autocast
from visionpe.ranges import check_width
from visionpe.registry import register_encoding
from visionpe.tracing import larger

Kind = Literal["plucker", "ray", "direction", "points"]
Frame = Literal["first", "world", "camera"]


@register_encoding("rays")
class Rays(PositionEncoding):
    """The ray through the middle of each patch, by a small network, is added to the token.

    Source of the kinds, of a ray from o, the middle of the camera, in the direction d of length 1:
    ``plucker``, ``(o x d, d)``, "Light Field Networks", arXiv 2106.02634, as in LVSM, arXiv 2410.17242; ``ray``, ``(o,
    d)``; ``direction``, d alone; ``points``, the places on it at ``points`` depths from ``near`` to ``far``, in equal
    steps, "PETR", arXiv 2203.05625. The network is ``GELU(x W_1 + b_1) W_2 + b_2``; W_2 and b_2 start at zero, so that
    a trained model begins as it was.

    On tokens without cameras, as of single images, a camera at the origin sees them, looking along z.

    Args:
        kind: What is told of the ray.
        frame: In what: ``first``, as the first camera sees it, so that it does not matter what the world has for its
            origin; ``world``, as the extrinsics have it; ``camera``, as its own camera sees it, which tells intrinsics
            and place alone.
        points: Places on the ray, of kind ``points``; 1 to 1024.
        near, far: Depths of the first and of the last, along the axis of the camera, in the unit of the extrinsics.
        focal: Of the camera of tokens without one, in the longer side of the image.
        hidden: Width of the network's hidden layer; default ``dim``.
        context: See :class:`~visionpe.base.PositionEncoding`.

    Raises:
        ValueError: If the grid has other than two axes, ``kind`` or ``frame`` is unknown, ``far`` is below ``near``, or
            an option is out of its range; in use, if cameras have no intrinsics, or are of another number of scenes
            than tokens.
    """

    source = "Plücker rays, arXiv 2106.02634; PETR, arXiv 2203.05625"

    def __init__(
        self,
        *,
        kind: Kind = "plucker",
        frame: Frame = "first",
        points: int = 64,
        near: float = 1.0,
        far: float = 61.2,
        focal: float = 1.0,
        hidden: int | None = None,
        **context: Any,
    ) -> None:
        super().__init__(**context)
        self.check_two_axes()
        check_choice("kind", kind, Kind)
        check_choice("frame", frame, Frame)
        self.kind, self.frame, self.points = kind, frame, check_count("points", points, 1, 1024)
        self.near, self.far = check_number("near", near, 0, 1e6), check_number("far", far, above=0, high=1e6)
        if far < near:
            raise ValueError(f"far={far} is below near={near}; allowed: that or more")
        self.focal = check_number("focal", focal, 1e-3, 1e3)
        width = {"plucker": 6, "ray": 6, "direction": 3, "points": 3 * self.points}[kind]
        hidden = self.dim if hidden is None else check_width("hidden", hidden)
        self.fc1 = WideLinear(width, hidden, **self.factory)
        self.fc2 = WideLinear(hidden, self.dim, **self.factory)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.kaiming_uniform_(self.fc1.weight, nonlinearity="relu")
        for parameter in (self.fc1.bias, self.fc2.weight, self.fc2.bias):
            nn.init.zeros_(parameter)

    def no_weight_decay(self) -> set[str]:
        return set()  # an ordinary network

    def looks(self, grid: Grid, *, device: torch.device, dtype: torch.dtype) -> Tensor:
        """What the network is told of every spatial token, ``([B,] N, 3 k)``."""
        self.check_axes(grid)
        places = grid.positions(device=device, dtype=dtype).unbind(-1)
        y, x = ((p + 0.5) / n for p, n in zip(places, grid.size))  # from 0 to 1 across the image
        if grid.cameras is None:
            (height, width), longer = grid.size, larger(*grid.size)
            sides = ((x - 0.5) * width / (longer * self.focal), (y - 0.5) * height / (longer * self.focal))
            ahead = torch.stack((*sides, torch.ones_like(x)), dim=-1)  # to depth 1
            origin = torch.zeros_like(ahead)
        else:
            inward, outward = (grid.of_views(m.to(device, dtype)) for m in self._matrices(grid.cameras))
            seen = times(inward, torch.stack((x, y, torch.ones_like(x)), dim=-1))
            ahead, origin = times(outward[..., :3, :3], seen), outward[..., :3, 3]
            origin = origin.expand_as(ahead)
        if self.kind == "points":
            depths = torch.linspace(self.near, self.far, self.points, device=device, dtype=dtype)
            return (origin[..., None, :] + depths[:, None] * ahead[..., None, :]).flatten(-2)
        d = F.normalize(ahead, dim=-1)
        if self.kind == "direction":
            return d
        first = torch.linalg.cross(origin, d) if self.kind == "plucker" else origin
        return torch.cat((first, d), dim=-1)

    def _matrices(self, cameras: Cameras) -> tuple[Tensor, Tensor]:
        """Image to camera, ``([B,] V, 3, 3)``, and camera to the frame of the rays, ``([B,] V, 4, 4)``.

        Raises:
            ValueError: If intrinsics are not known.
        """
        if cameras.intrinsics is None:
            raise ValueError("cameras without intrinsics: 'rays' do not know where patches look; allowed: with them")
        inward = affine_inverse(lifted(cameras.intrinsics))
        poses = (cameras.from_first() if self.frame == "first" else cameras).extrinsics
        if self.frame == "camera":
            poses = torch.eye(4, device=poses.device, dtype=poses.dtype).expand_as(poses)
        return inward[..., :3, :3], affine_inverse(poses)

    def add(self, x: Tensor, grid: Grid) -> Tensor:
        with without_autocast(x):
            table = self.fc2(F.gelu(self.fc1(self.looks(grid, device=x.device, dtype=wide_dtype(x)))))
        return x + table.to(x.dtype)

    def extra_repr(self) -> str:
        return f"kind={self.kind!r}, frame={self.frame!r}"


def times(m: Tensor, x: Tensor) -> Tensor:
    """Matrices ``(..., 3, 3)`` and vectors ``(..., 3)``."""
    return (m * x[..., None, :]).sum(-1)
