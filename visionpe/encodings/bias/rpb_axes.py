"""A relative position bias that is a sum over the axes, each with a clamped table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from visionpe.checks import check_count
from visionpe.encodings.bias.offset import OffsetEncoding
from visionpe.grid import Grid
from visionpe.policy.functions import POSITION_POLICIES
from visionpe.ranges import MAX_SIDE, check_init_std, check_table, draw_table
from visionpe.registry import register_encoding


@register_encoding("rpb_axes")
class AxesPositionBias(OffsetEncoding):
    """One learned number for each axis, offset along it and head, added up; offsets beyond the table have its last.

    Source: Point Transformer V3, arXiv 2312.10035, whose code has it for patches of points (RPE): linear in the reach
    where ``rpb`` is quadratic or cubic. ``table`` is ``(depth, axes, 2 reach + 1, heads)``, from the most negative
    offset on. Real offsets, of sparse voxels, are rounded.

    A table of another reach is cut, or goes on with its last numbers, when it is loaded.

    Args:
        reach: The longest offset that has a number of its own, in tokens; default: the longest on the trained grid.
        init_std: Of the table at first.
        context: See :class:`~visionpe.base.PositionEncoding`. Policy ``extrapolate`` counts offsets in tokens,
            ``interpolate`` in tokens of the trained grid.

    Raises:
        ValueError: If ``reach`` is no positive whole number, or the table would be too large.
    """

    source = "PTv3, arXiv 2312.10035"
    irregular = True
    resized_on_load = ("table",)
    stacked = (("table", 0),)
    stacks = True
    policies = POSITION_POLICIES  # beyond the table they are clamped anyway

    def __init__(self, *, reach: int | None = None, init_std: float = 0.02, **context: Any) -> None:
        super().__init__(**context)
        self.init_std = check_init_std(init_std)
        self.follows_grid = reach is None
        self.reach = _longest(self.grid_size) if reach is None else check_count("reach", reach, 1, MAX_SIDE)
        axes = len(self.grid_size)
        shape = check_table("reach", (self.reach,), self.depth, axes, 2 * self.reach + 1, self.num_heads)
        self.table = nn.Parameter(torch.empty(shape, **self.factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        draw_table(self.table, self.init_std)

    def made_of(self, layer: int) -> Sequence[Tensor]:
        return (self.table,)

    def function(self, offsets: Sequence[Tensor], grid: Grid, layer: int) -> Tensor:
        total: Tensor | None = None
        for table, d in zip(self.table[layer], self.scaled(offsets, grid)):  # (2 reach + 1, heads)
            places = (d.round().clamp(-self.reach, self.reach) + self.reach).long()
            values = table.to(d.dtype)[places].movedim(-1, 0)  # (heads, ...)
            total = values if total is None else total + values
        assert total is not None
        return total

    def set_input_grid(self, grid_size: Sequence[int]) -> None:
        if self.follows_grid:
            self.reach = _longest(grid_size)
            table = _of_reach(self.table.detach(), self.reach)
            self.table = nn.Parameter(table, requires_grad=self.table.requires_grad)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        table = state_dict.get(prefix + "table")
        if table is not None and table.ndim == 4 and table.shape[2] % 2:
            state_dict[prefix + "table"] = _of_reach(table, self.reach)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f"reach={self.reach}, {super().extra_repr()}"


def _longest(grid_size: Sequence[int]) -> int:
    return max(max(grid_size) - 1, 1)


def _of_reach(table: Tensor, reach: int) -> Tensor:
    """``(depth, axes, 2 before + 1, heads)`` to another reach: what any offset that has a number there gets."""
    before = table.shape[2] // 2
    offsets = torch.arange(-reach, reach + 1, device=table.device).clamp(-before, before)
    return table[:, :, offsets + before]
