"""LeViT's attention bias: a learned table over the absolute offsets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from visionpe.encodings.bias.offset import OffsetEncoding
from visionpe.encodings.bias.rpb import OFFSET_TABLE_POLICIES, look_up, resize_offsets
from visionpe.grid import Grid
from visionpe.policy.grammar import PolicyTerm
from visionpe.ranges import check_table
from visionpe.registry import register_encoding


@register_encoding("attention_bias")
class AttentionBias(OffsetEncoding):
    """One learned number per absolute offset ``(|dy|, |dx|)``, head and layer: symmetric under reflection.

    Source: LeViT, section 4.2. ``table`` is ``(depth, heads, H, W)``, zero at first.

    Args:
        context: See :class:`~visionpe.base.PositionEncoding`. Policies are those of ``rpb``, on the table mirrored
            to all offsets, so that zero stays zero.
    """

    source = "LeViT, arXiv 2104.01136"
    policies = OFFSET_TABLE_POLICIES
    resized_on_load = ("table",)
    whole_coords = True
    stacked = (("table", 0),)
    stacks = True
    kept_bytes = 128 * 2**20  # LeViT's own code keeps all

    def __init__(self, **context: Any) -> None:
        super().__init__(**context)
        self.check_two_axes()
        shape = check_table("grid_size", self.grid_size, self.depth, self.num_heads, *self.grid_size)
        self.table = nn.Parameter(torch.zeros(shape, **self.factory))

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.table)

    def made_of(self, layer: int) -> Sequence[Tensor]:
        return (self.table,)

    def resized(self, size: Sequence[int], layer: int) -> Tensor:
        """The table of a layer for a grid of ``size``, mirrored: ``(heads, 2 height - 1, 2 width - 1)``."""
        return _mirrored(self.table[layer], size, self.main_policy or "bicubic")

    def function(self, offsets: Sequence[Tensor], grid: Grid, layer: int) -> Tensor:
        return look_up(self.resized(grid.size, layer), offsets).to(offsets[0].dtype)

    def _table(self, grid: Grid, layer: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        return self.resized(grid.size, layer).to(dtype)  # all offsets of a full grid, in order

    def set_input_grid(self, grid_size: Sequence[int]) -> None:
        resized = _quarter(self.table.detach().flatten(0, 1), grid_size, self.main_policy or "bicubic")
        resized = resized.unflatten(0, self.table.shape[:2]).clone(memory_format=torch.contiguous_format)
        self.table = nn.Parameter(resized, requires_grad=self.table.requires_grad)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        table = state_dict.get(prefix + "table")
        if table is not None and table.ndim == 4:
            resized = _quarter(table.flatten(0, 1), self.table.shape[2:], self.main_policy or "bicubic")
            state_dict[prefix + "table"] = resized.unflatten(0, table.shape[:2])
        super()._load_from_state_dict(state_dict, prefix, *args)


def _mirrored(table: Tensor, size: Sequence[int], policy: str | PolicyTerm) -> Tensor:
    """``(heads, H, W)`` over absolute offsets to ``(heads, 2 height - 1, 2 width - 1)`` over all of them."""
    for axis in (-2, -1):
        table = torch.cat((table.flip(axis).narrow(axis, 0, table.shape[axis] - 1), table), dim=axis)
    return resize_offsets(table, size, policy)


def _quarter(table: Tensor, size: Sequence[int], policy: str | PolicyTerm) -> Tensor:
    return _mirrored(table, size, policy)[:, size[0] - 1 :, size[1] - 1 :]
