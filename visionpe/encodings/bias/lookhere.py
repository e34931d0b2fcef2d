"""LookHere: every head looks in one direction, and no farther than its slope lets it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from visionpe.attention.bias import Bias, OffsetBias
from visionpe.checks import check_choice, check_flag, check_number, check_numbers
from visionpe.encodings.bias.offset import OffsetEncoding
from visionpe.grid import Grid
from visionpe.registry import register_encoding
from visionpe.tracing import is_tracing

View = Literal[45, 90, 180]

# Two groups of four directions for each field of view. A direction is one or two conditions on where the key stands
# as seen from the query, and the head sees the keys that fulfil all of them.
DIRECTIONS: dict[int, tuple[tuple[tuple[str, ...], ...], ...]] = {
    180: (
        (("up",), ("down",), ("left",), ("right",)),
        (("up or right",), ("up or left",), ("down or right",), ("down or left",)),
    ),
    90: (
        (("up", "left"), ("up", "right"), ("down", "left"), ("down", "right")),
        (("mostly up",), ("mostly down",), ("mostly left",), ("mostly right",)),
    ),
    45: (
        (("mostly up", "left"), ("mostly down", "left"), ("mostly left", "up"), ("mostly right", "up")),
        (("mostly up", "right"), ("mostly down", "right"), ("mostly left", "down"), ("mostly right", "down")),
    ),
}


def fulfils(condition: str, dy: Tensor, dx: Tensor) -> Tensor:
    """Whether the offset (key - query) of rows and columns, downwards and to the right, lies in a region.

    Borders belong to a region, so the query itself lies in all of them.
    """
    match condition.split():
        case ["up" | "down" | "left" | "right"]:
            along, _ = _turned(condition, dy, dx)
            return along >= 0
        case ["mostly", direction]:
            along, across = _turned(direction, dy, dx)
            return along >= across.abs()
        case [vertical, "or", horizontal]:  # the half plane beyond a diagonal
            return _turned(vertical, dy, dx)[0] + _turned(horizontal, dy, dx)[0] >= 0
    raise ValueError(f"condition={condition!r} is unknown")


def _turned(direction: str, dy: Tensor, dx: Tensor) -> tuple[Tensor, Tensor]:
    """Steps along a direction, and across it."""
    return {"up": (-dy, dx), "down": (dy, dx), "left": (-dx, dy), "right": (dx, dy)}[direction]


@register_encoding("lookhere")
class LookHere(OffsetEncoding):
    """Most heads see one sector of the image only, and all are pulled to what is near; no parameters.

    Source: "LookHere: Vision Transformers with Directed Attention Generalize and Extrapolate", section 3, and its
    published code. ``logit -= global_slope * layer slope * head slope * distance`` (Euclidean, in tokens), and minus
    infinity outside of the field of view of the head. Layer slopes run evenly from the first to the last block.

    A third of the heads, at most four, see everything, with slopes 1/4, 1/16, 1/64, 1/256; the others look in the
    directions of ``DIRECTIONS``: four heads a group, of slope 1/2. Where there are more than two fours, as with 16
    heads, the first group is repeated, with slope 1/4. Every query sees itself and the prefix tokens, which see all.

    Args:
        view: Field of view in degrees, 45, 90 or 180.
        global_slope: Scales all distances; smaller values suit images larger than in training.
        layer_slopes: Of the first and of the last block.
        rounded: Round what is subtracted to bfloat16, whatever the dtype of the tokens: the published models are
            trained and run with it, and differ from the formula by up to 0.2 %.
        context: See :class:`~visionpe.base.PositionEncoding`. Policy ``extrapolate`` measures distances in tokens, as
            published; ``interpolate`` in tokens of the trained grid. Sectors stay as they are.

    Raises:
        ValueError: If ``view`` is none of the three, a slope is negative or the grid has not two axes.
    """

    source = "LookHere, arXiv 2405.13985"
    takes_pooled = False  # a query that is no key might see none
    # Of the one block that is left, where `one_block` made this.
    slope: Tensor | None = None

    def __init__(
        self,
        *,
        view: View = 90,
        global_slope: float = 1.0,
        layer_slopes: tuple[float, float] = (1.5, 0.5),
        rounded: bool = True,
        **context: Any,
    ) -> None:
        super().__init__(**context)
        check_choice("view", view, View)
        check_flag("rounded", rounded)
        if len(self.grid_size) != 2:
            raise ValueError(f"grid_size={self.grid_size}: lookhere has directions on two axes alone")
        check_number("global_slope", global_slope, 0, 1e6)
        check_numbers("layer_slopes", layer_slopes, 2, 0, 1e6)
        self.view, self.global_slope, self.layer_slopes = view, global_slope, tuple(layer_slopes)
        self.rounded = rounded

    def heads(self) -> list[tuple[tuple[str, ...], float]]:
        """The direction and the slope of each head; no condition is a head that sees everything."""
        blind = min(4, self.num_heads // 3)
        fours = -(-(self.num_heads - blind) // 4)
        first, second = DIRECTIONS[self.view]
        directed = [
            (direction, 2.0 ** -(repeat + 1))
            for group, repeats in ((first, (fours + 1) // 2), (second, fours // 2))
            for repeat in range(repeats)
            for direction in group
        ]
        everything: list[tuple[tuple[str, ...], float]] = [((), 4.0 ** -(i + 1)) for i in range(blind)]
        return directed[: self.num_heads - blind] + everything

    def layer_slope(self, layer: int) -> float | Tensor:
        """The slope of a block."""
        if self.slope is not None:
            return self.slope
        first, last = self.layer_slopes
        return self.global_slope * (first + (last - first) * layer / max(1, self.depth - 1))

    def of_block(self, x: Tensor, grid: Grid, *, layer: int) -> dict[str, Any]:
        return {"slope": torch.tensor(self.layer_slope(layer), dtype=torch.float64, device="cpu")}

    def function(self, offsets: Sequence[Tensor], grid: Grid, layer: int) -> Tensor:
        penalty = -self.layer_slope(layer) * self.distance(offsets, grid)
        if self.rounded:  # slopes of heads are powers of two, so they may come later
            penalty = penalty.bfloat16().to(penalty.dtype)
        dy, dx = (-d for d in offsets)  # from the query to the key
        biases = []
        for conditions, slope in self.heads():
            bias = slope * penalty
            for condition in conditions:
                bias = bias.masked_fill(~fulfils(condition, dy, dx), float("-inf"))
            biases.append(bias)
        return torch.stack(biases)  # (heads, ...)

    def bias(self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0) -> Bias:
        self.check_axes(grid)
        if not grid.dense:
            return super().bias(q, k, grid, layer=layer)
        dtype = torch.promote_types(q.dtype, torch.float32)
        slope = None if is_tracing() else float(self.layer_slope(layer))  # a graph keeps no tables
        key = (grid.size, self.policy, self.grid_size, slope, q.device, dtype)
        table = self.cache.get(key, lambda: self._table(grid, layer, q.device, dtype))
        return OffsetBias(table, grid, cache=self.cache, key=key)

    def extra_repr(self) -> str:
        return f"view={self.view}, global_slope={self.global_slope}, {super().extra_repr()}"
