"""Absolute position embedding for window attention: a tiled window table and a resized global one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from visionpe.base import PositionEncoding
from visionpe.checks import check_choice, check_pair
from visionpe.grid import Grid
from visionpe.policy.functions import resize_table
from visionpe.ranges import check_init_std, draw_table
from visionpe.registry import register_encoding

# form: resize of the global table
FORMS = {"sam2": "bicubic", "timm": "bicubic_antialias"}


@register_encoding("abswin")
class AbsoluteWindowEmbedding(PositionEncoding):
    """One vector per place in a window, repeated over the map, plus a small global table stretched over the map.

    Source: "Window Attention is Bugged: How not to Interpolate Position Embeddings" (its absolute win).
    What the tokens of a window see of their places in it stays the same at every size. Prefix tokens get none.

    ``table`` is ``(height, width, dim)`` of the global table, ``window_table`` likewise. The official files hold both
    as ``(1, dim, height, width)``: ``pos_embed`` and ``pos_embed_window`` (SAM 2) or ``pos_embed_win`` (timm).

    Args:
        form: How the global table is resized to the grid: ``sam2`` with plain bicubic interpolation, as SAM 2's
            backbone does, ``timm`` with antialiased, as timm's Hiera does. They differ at every size but the table's.
        window: Side or sides of the window table in tokens: the window of the first attention. A grid that is no
            multiple of it ends in part of a window.
        background: Side or sides of the global table.
        init_std: Standard deviation of the initial entries.
        context: See :class:`~visionpe.base.PositionEncoding`. There is no policy: every size is treated alike.

    Raises:
        ValueError: If ``form`` is unknown, a size is none, or the grid has not two axes.
    """

    source = "Window Attention is Bugged, arXiv 2311.05613"
    whole_coords = True

    def __init__(
        self,
        *,
        form: Literal["sam2", "timm"] = "sam2",
        window: int | Sequence[int] = 8,
        background: int | Sequence[int] = 14,
        init_std: float = 0.02,
        **context: Any,
    ) -> None:
        super().__init__(**context)
        check_choice("form", form, list(FORMS))
        if len(self.grid_size) != 2:
            raise ValueError(f"grid_size={self.grid_size}: abswin stands on two axes")
        self.form, self.init_std = form, check_init_std(init_std)
        sides, window = check_pair("background", background, 1, 1024), check_pair("window", window, 1, 1024)
        self.table = nn.Parameter(torch.empty(*sides, self.dim, **self.factory))
        self.window_table = nn.Parameter(torch.empty(*window, self.dim, **self.factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        draw_table(self.table, self.init_std)
        draw_table(self.window_table, self.init_std)

    def resized(self, size: Sequence[int]) -> Tensor:
        """Both tables together at one size, ``(height, width, dim)``."""
        tiled: Tensor = self.window_table
        for axis, n in enumerate(size):
            place = torch.arange(n, device=tiled.device) % self.window_table.shape[axis]
            tiled = tiled.index_select(axis, place)
        return resize_table(self.table, size, FORMS[self.form]) + tiled

    def add(self, x: Tensor, grid: Grid) -> Tensor:
        self.check_axes(grid)
        table = self.resized(grid.size).flatten(0, 1)  # (height * width, dim)
        if not grid.dense:
            rows, columns = grid.whole_positions(self.name, device=x.device).unbind(-1)
            table = table[rows * grid.size[1] + columns]
        return x + table.to(x.dtype)

    def extra_repr(self) -> str:
        return f"form={self.form!r}"
