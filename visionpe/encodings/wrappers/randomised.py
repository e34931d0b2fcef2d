"""Randomised, ordered positions in training."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from visionpe.checks import check_counts, shown
from visionpe.encodings.wrappers.moved import MovedPositions
from visionpe.grid import Grid
from visionpe.registry import register_wrapper
from visionpe.tracing import is_exporting


@register_wrapper("randomised")
class RandomisedPositions(MovedPositions):
    """In training the rows and the columns stand at random places of a larger grid, in their order.

    Source: "Randomized Positional Encodings Boost Length Generalization of Transformers", section 3: positions are a
    random subset of 0 to L - 1 without repetition, sorted. Here on each axis by itself, and for each sample; in the
    paper a batch shares them. So positions are known that the trained size alone would not show.

    Args:
        over: The encoding underneath, ``"randomised(rope_axial)"``; one that reads coordinates.
        range: Places on each axis (L), one number or one an axis, in the order of the grid; at least as many as there
            are tokens. Default: twice the trained grid.
        context: See :class:`~visionpe.base.PositionEncoding`. Policies see a grid of ``range``.

    Raises:
        ValueError: If ``over`` is not one encoding or needs the full map, or ``range`` is smaller than the trained
            grid; in training, if it is smaller than the grid at hand.
    """

    source = "Randomized positional encodings, arXiv 2305.16843"
    # Whole places are exchanged for whole places.
    whole_coords = True

    def __init__(self, *, range: int | Sequence[int] | None = None, **context: Any) -> None:
        super().__init__(**context)
        trained = self.grid_size
        if range is None:
            range = [2 * n for n in trained]
        each = (range,) * len(trained) if isinstance(range, Real) else range
        self.range = check_counts("range", each, None, 1, 2**20)
        if len(self.range) != len(trained):
            raise ValueError(
                f"range={shown(range)} has not one number for each axis of grid_size={tuple(trained)}; allowed: "
                f"{len(trained)} numbers"
            )
        self._check_range(trained)

    def _check_range(self, size: Sequence[int]) -> None:
        if any(n > places for n, places in zip(size, self.range)):
            raise ValueError(f"range={self.range} has too few places for a grid of {tuple(size)} tokens")

    def draw(self, grid: Grid, batch: int, device: torch.device) -> Tensor:
        """The place of each row, then of each column, ...: whole, ``(B, n_0 + n_1 + ...)``."""
        if not is_exporting():  # the graph of an export must not branch on a size
            self._check_range(grid.size)
        order = [torch.rand(batch, places, device=device).argsort(dim=1) for places in self.range]
        return torch.cat([o[:, :n].sort(dim=1).values for o, n in zip(order, grid.size)], dim=1)

    def fits(self, drawn: Tensor, grid: Grid) -> bool:
        return drawn.shape[1] == sum(grid.size)

    def ready(self, drawn: Tensor, grid: Grid) -> Grid:
        places = drawn.split(list(grid.size), dim=1)  # (B, n) an axis
        here = grid.whole_positions(type(self).name, device=drawn.device).expand(len(drawn), -1, -1)  # (B, N, axes)
        coords = torch.stack([p.gather(1, i) for p, i in zip(places, here.unbind(-1))], dim=-1)
        seen: Any = {"cameras": grid.cameras, "views": grid.views}
        return Grid(self.range, grid.prefix, grid.window, coords.float(), **seen, known="whole")

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, range={self.range}"
