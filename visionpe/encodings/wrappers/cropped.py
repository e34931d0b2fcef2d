"""Positions of a random crop of a larger image in training."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any

import torch
from torch import Tensor

from visionpe.checks import check_number, check_numbers, shown
from visionpe.encodings.wrappers.moved import MovedPositions
from visionpe.grid import Grid
from visionpe.registry import register_wrapper


def _interval(value: Sequence[float], what: str) -> tuple[float, float]:
    try:
        check_numbers(what, value, 2, 1e-6, 1e6)
        low, high = (float(v) for v in value)
        if low > high:
            raise ValueError
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"{what}={shown(value)} is no range; allowed: two positive numbers, the smaller one first, 1e-6 to 1e6"
        ) from None
    return low, high


@register_wrapper("cropped")
class CroppedPositions(MovedPositions):
    """In training the image stands for a region of a larger one: its tokens spread over a random box of a larger grid.

    Source: the cropped positional embedding of "Region-Aware Pretraining for Open-Vocabulary Object Detection with
    Vision Transformers" (RO-ViT), and its published code: a table of 14 x 14 is enlarged to the 64 x 64 of detection,
    and a box of it, drawn as for a random resized crop, is sampled at as many places as there are tokens. There the
    table is enlarged bilinearly; here by the policy.

    The area is drawn first, evenly; then the logarithm of the aspect, evenly among those whose box fits. Token i of n
    stands at ``(start + (i + 0.5) / n * length) * size - 0.5``, in tokens of the larger grid of ``size``.

    Args:
        over: The encoding underneath, ``"cropped(ape)"``; one that reads fractional coordinates.
        enlarge: Side of the larger grid, in sides of the grid at hand; 1 to 1000.
        scale: Smallest and largest area of the box, as a fraction of the larger grid.
        aspect: Smallest and largest width over height of the box, both measured in sides of the grid; 1 among them.
        context: See :class:`~visionpe.base.PositionEncoding`. Policies see the larger grid.

    Raises:
        ValueError: If ``over`` is not one encoding or reads whole coordinates alone, the grid has not two axes, or an
            option lies outside its range.
    """

    source = "RO-ViT, arXiv 2305.07011"
    breaks_whole = True

    def __init__(
        self,
        *,
        enlarge: float = 64 / 14,
        scale: Sequence[float] = (0.1, 1.0),
        aspect: Sequence[float] = (0.5, 2.0),
        **context: Any,
    ) -> None:
        super().__init__(**context)
        if len(self.grid_size) != 2:
            raise ValueError(f"grid_size={self.grid_size}: cropped stands on two axes")
        check_number("enlarge", enlarge, 1, 1000)
        self.enlarge, self.scale, self.aspect = enlarge, _interval(scale, "scale"), _interval(aspect, "aspect")
        if self.scale[1] > 1:
            raise ValueError(f"scale={scale!r} reaches beyond the grid; allowed: up to 1")
        if not self.aspect[0] <= 1 <= self.aspect[1]:
            raise ValueError(f"aspect={aspect!r} leaves out 1, the one aspect that every area can have")

    def draw(self, grid: Grid, batch: int, device: torch.device) -> Tensor:
        """Where each box starts and how long it is on each axis, as fractions of it: ``(B, 2, axes)``."""
        place = torch.rand(4, batch, device=device)
        area = self.scale[0] + (self.scale[1] - self.scale[0]) * place[0]  # (B,)
        low = area.log().clamp(min=log(self.aspect[0]))  # a flatter or taller box of this area would not fit
        high = (-area.log()).clamp(max=log(self.aspect[1]))
        aspect = (low + (high - low) * place[1]).exp()
        length = torch.stack(((area / aspect).sqrt(), (area * aspect).sqrt()), dim=-1).clamp(max=1)  # (B, axes)
        return torch.stack(((1 - length) * place[2:].T, length), dim=1)

    def ready(self, drawn: Tensor, grid: Grid) -> Grid:
        start, length = drawn[:, None].unbind(2)  # (B, 1, axes)
        here = grid.positions(device=drawn.device, dtype=drawn.dtype)  # ([B,] N, axes)
        larger = [int(n * self.enlarge + 0.5) for n in grid.size]
        coords = [
            (start[..., a] + (here[..., a] + 0.5) / n * length[..., a]) * size - 0.5
            for a, (n, size) in enumerate(zip(grid.size, larger))
        ]
        seen: Any = {"cameras": grid.cameras, "views": grid.views}
        return Grid(tuple(larger), grid.prefix, grid.window, torch.stack(coords, dim=-1), **seen, known="finite")

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, enlarge={self.enlarge:.4g}, scale={self.scale}, aspect={self.aspect}"
