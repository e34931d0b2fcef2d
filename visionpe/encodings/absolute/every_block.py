"""An absolute encoding that joins the tokens before every block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionpe.base import PositionEncoding
from visionpe.checks import check_count, check_flag
from visionpe.encodings.wrappers.base import PositionWrapper
from visionpe.grid import Grid
from visionpe.ranges import MAX_PREFIX
from visionpe.registry import HINTS, Spec, create_encodings, register_encoding


@register_encoding("every_block")
class EveryBlockEmbedding(PositionEncoding):
    """The residual stream is ``x + p_l`` ahead of block l, where others add a ``p`` ahead of the first alone.

    Source: "Position Embedding Needs an Independent Layer Normalization", arXiv 2212.05262, whose code compares its
    LaPE with these two: ``share``, one ``p`` for all blocks, and ``unshare``, one for each. No norm of its own stands
    before them. Written ``"every_block(ape)"``, ``"every_block(sincos)"``.

    Args:
        over: The absolute encoding that says what is added: one whose only site is ``add``.
        shared: One of it for all blocks, or one for each: ``tables.0``, ``tables.1``, ...
        prefix_slots: Prefix tokens that have a learned entry from the second block on, ``prefix_table``, ``(1 or depth,
            prefix_slots, dim)``, as published; what the first block adds is part of the token itself.
        context: See :class:`~visionpe.base.PositionEncoding`; a policy is that of the encoding underneath.

    Raises:
        ValueError: If ``over`` is not one absolute encoding, or ``prefix_slots`` is negative.
    """

    source = "LaPE's share and unshare, arXiv 2212.05262"
    hands_on_hints = True
    by_block = ("tables",)
    joins_every_block = True
    # What comes behind the one block that is left, where `one_block` made this.
    made: Tensor | None = None

    def __init__(self, *, over: Spec = "ape", shared: bool = False, prefix_slots: int = 0, **context: Any) -> None:
        super().__init__(**{k: v for k, v in context.items() if k not in HINTS})
        self.shared = check_flag("shared", shared)
        check_count("prefix_slots", prefix_slots, 0, MAX_PREFIX)
        context.pop("policy", None)
        tables = [create_encodings(over, **context) for _ in range(1 if shared else self.depth)]
        inner = tables[0]
        if len(inner) == 1 and isinstance(inner[0], PositionWrapper):
            raise ValueError(f"over={over!r}: put the wrapper around every_block instead")
        if len(inner) != 1 or type(inner[0]).add is PositionEncoding.add or inner[0].sites() != ("add",):
            raise ValueError(
                f"over={over!r} is not one absolute encoding; allowed: ape, sincos and others that only add"
            )
        self.tables = nn.ModuleList(each for (each,) in tables)
        names = [f"tables.{n}.{key}" for n in range(len(tables)) for key in inner[0].resized_on_load]
        self.resized_on_load = tuple(names)  # type: ignore[misc]
        self.prefix_table = None
        if prefix_slots:
            self.prefix_table = nn.Parameter(torch.empty(len(tables), prefix_slots, self.dim, **self.factory))
        if shared:
            self.by_block = ()  # type: ignore[assignment, misc]
        elif prefix_slots:
            self.stacked = (("prefix_table", 0),)  # type: ignore[misc]
        self.reset_parameters()

    @property
    def beneath(self) -> PositionEncoding:
        first: Any = self.tables[0]
        return first

    def reset_parameters(self) -> None:
        if self.prefix_table is not None:
            nn.init.trunc_normal_(self.prefix_table, std=0.02)

    def no_weight_decay(self) -> set[str]:
        slots = set() if self.prefix_table is None else {"prefix_table"}
        tables: Any = enumerate(self.tables)
        return slots | {f"tables.{n}.{key}" for n, table in tables for key in table.no_weight_decay()}

    def set_input_grid(self, grid_size: Sequence[int]) -> None:
        tables: Any = self.tables
        for table in tables:
            table.set_input_grid(grid_size)

    def of(self, layer: int) -> PositionEncoding:
        """What says what is added ahead of block ``layer``."""
        table: Any = self.tables[0 if self.shared else layer]
        return table

    def add(self, x: Tensor, grid: Grid) -> Tensor:
        return self.of(0)("add", x, grid)

    def of_block(self, x: Tensor, grid: Grid, *, layer: int) -> dict[str, Any]:
        if layer + 1 == self.depth:
            return {"made": x.new_zeros(1, 1, 1)}
        p = self.of(layer + 1)("add", torch.zeros_like(x[:1, : grid.num_spatial]), grid)
        if grid.prefix:
            slots = p.new_zeros(0, self.dim)
            if self.prefix_table is not None:
                slots = self.prefix_table[0 if self.shared else layer + 1, : grid.prefix].to(p.dtype)
            slots = F.pad(slots, (0, 0, 0, grid.prefix - len(slots)))
            p = torch.cat((slots.expand(p.shape[0], -1, -1), p), dim=1)
        return {"made": p}

    def refine(self, x: Tensor, grid: Grid, *, layer: int = 0) -> Tensor:
        """Ahead of the next block, if there is one."""
        if self.made is not None:
            return x + self.made
        if layer + 1 == self.depth:
            return x
        return x + self.of_block(x, grid, layer=layer)["made"]

    def extra_repr(self) -> str:
        return f"shared={self.shared}"
