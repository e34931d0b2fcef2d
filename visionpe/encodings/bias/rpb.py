"""Relative position bias: a learned table over the offsets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from visionpe.checks import check_count, check_flag, check_number
from visionpe.encodings.bias.offset import OffsetEncoding
from visionpe.grid import Grid
from visionpe.policy.functions import READ_POLICIES, TABLE_POLICIES, is_trained_size, resize_map, resize_offset_table
from visionpe.policy.functions.terms import as_term
from visionpe.policy.grammar import PolicyTerm
from visionpe.ranges import check_init_std, check_table, draw_table
from visionpe.registry import register_encoding

# What becomes of tables of offsets.
OFFSET_TABLE_POLICIES = ("bicubic", *(p for p in TABLE_POLICIES if p != "bicubic"), *READ_POLICIES)


def look_up(table: Tensor, offsets: Sequence[Tensor]) -> Tensor:
    """Read ``(heads, 2 H - 1, 2 W - 1)`` at whole offsets (query - key), which broadcast."""
    height, width = (n // 2 for n in table.shape[1:])
    rows, columns = (d.long() for d in offsets)
    return table[:, rows + height, columns + width]


@register_encoding("rpb")
class RelativePositionBias(OffsetEncoding):
    """One learned number per offset, head and layer, added to the logits.

    Source: Swin, "Hierarchical Vision Transformer using Shifted Windows", eq. 4. Entry ``[layer, head, dy + H - 1,
    dx + W - 1]`` of ``table`` belongs to the offset (query - key).

    Args:
        init_std: Standard deviation of the initial entries.
        gain: The entries are multiplied by it. Above one they learn faster, which matters in short trainings.
        shared: One table for all layers.
        prefix_slots: 1 for learned numbers of pairs that touch a prefix token, as in BEiT: ``prefix_table``,
            ``(depth, heads, 3)``, is of prefix queries with patches, of patches with prefix keys, and of two prefix
            tokens. With 0 such pairs have none.
        context: See :class:`~visionpe.base.PositionEncoding`. Policies that interpolate resize the table: the offset
            that spans a given part of the image keeps its bias. Under ``clamp``, ``geometric`` and ``rescale(a)``
            near offsets keep it, or nearly, see :func:`~visionpe.policy.functions.resize_offset_table`.
    """

    source = "Swin, arXiv 2103.14030"
    policies = OFFSET_TABLE_POLICIES
    resized_on_load = ("table",)
    whole_coords = True
    stacked = (("*table", 0),)
    stacks = True

    def __init__(
        self,
        *,
        init_std: float = 0.02,
        gain: float = 1.0,
        shared: bool = False,
        prefix_slots: int = 0,
        **context: Any,
    ) -> None:
        super().__init__(**context)
        self.shared = check_flag("shared", shared)
        if self.shared:
            self.stacked = ()  # type: ignore[assignment, misc]
        self.init_std, self.gain = check_init_std(init_std), check_number("gain", gain, above=0, high=1e4)
        self.check_two_axes()
        offsets = [2 * n - 1 for n in self.grid_size]
        tables = 1 if self.shared else self.depth
        shape = check_table("grid_size", self.grid_size, tables, self.num_heads, *offsets)
        self.table = nn.Parameter(torch.empty(shape, **self.factory))
        check_count("prefix_slots", prefix_slots, 0, 1)
        prefix = torch.empty(tables, self.num_heads, 3, **self.factory) if prefix_slots else None
        self.prefix_table = None if prefix is None else nn.Parameter(prefix)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        draw_table(self.table, self.init_std)
        if self.prefix_table is not None:
            draw_table(self.prefix_table, self.init_std)

    def resized(self, size: Sequence[int], layer: int) -> Tensor:
        """The table of a layer for a grid of ``size``: ``(heads, 2 height - 1, 2 width - 1)``."""
        table = resize_offsets(self.table[0 if self.shared else layer], size, self.main_policy or "bicubic")
        return table if self.gain == 1 else table * self.gain

    def made_of(self, layer: int) -> Sequence[Tensor]:
        return (self.table,) if self.prefix_table is None else (self.table, self.prefix_table)

    def function(self, offsets: Sequence[Tensor], grid: Grid, layer: int) -> Tensor:
        return look_up(self.resized(grid.size, layer), offsets).to(offsets[0].dtype)

    def _table(self, grid: Grid, layer: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        return self.resized(grid.size, layer).to(dtype)  # all offsets of a full grid, in order

    def _prefix_terms(self, layer: int) -> Tensor | None:
        return None if self.prefix_table is None else self.prefix_table[0 if self.shared else layer] * self.gain

    def set_input_grid(self, grid_size: Sequence[int]) -> None:
        resized = resize_offsets(self.table.detach(), grid_size, self.main_policy or "bicubic").clone(
            memory_format=torch.contiguous_format
        )
        self.table = nn.Parameter(resized, requires_grad=self.table.requires_grad)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        table = state_dict.get(prefix + "table")
        if table is not None and table.ndim == 4:
            grid = [(n + 1) // 2 for n in self.table.shape[2:]]
            state_dict[prefix + "table"] = resize_offsets(table, grid, self.main_policy or "bicubic")
        super()._load_from_state_dict(state_dict, prefix, *args)


def resize_offsets(table: Tensor, size: Sequence[int], policy: str | PolicyTerm) -> Tensor:
    """A table over offsets, ``([depth,] heads, 2 H - 1, 2 W - 1)``, for a grid of ``size``."""
    shape = tuple(2 * n - 1 for n in size)
    # An exported graph serves every size, so it cannot branch on one.
    if is_trained_size(tuple(table.shape[-2:]), shape):
        return table
    if as_term(policy, OFFSET_TABLE_POLICIES).name in READ_POLICIES:
        return resize_offset_table(table, size, policy)
    return resize_map(table, shape, policy) if table.ndim == 4 else resize_map(table[None], shape, policy)[0]
