"""Locally-enhanced position encoding: a convolution of the values, beside attention."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionpe.attention.dispatch import AttentionWeights
from visionpe.base import PositionEncoding
from visionpe.encodings.convolution.cpe import RENAMED
from visionpe.encodings.convolution.layers import SizedConv2d
from visionpe.grid import Grid
from visionpe.policy.functions import CONVOLUTION_POLICIES
from visionpe.ranges import check_kernel_size
from visionpe.registry import register_encoding


@register_encoding("lepe")
class LocallyEnhancedPositionEncoding(PositionEncoding):
    """A depthwise convolution of the map of values, added to the attended values of every layer.

    Source: "CSWin Transformer", section 3.2, eq. 5 (LePE). With ``grid.window`` set, each window (a stripe, there) is
    convolved on its own, with zeros around it; windows start at the top left, and one that reaches over the border of
    the map sees zeros there. Prefix tokens pass by.

    Args:
        kernel_size: Side of the kernel in tokens, odd.
        context: See :class:`~visionpe.base.PositionEncoding`. Policy ``extrapolate`` takes the convolution as it is,
            as in the paper; ``interpolate``, ``rescale`` and ``native`` are those of
            :func:`~visionpe.policy.functions.convolve`.

    Raises:
        ValueError: If ``kernel_size`` is even or not positive, or the trained grid has not two axes; in use, if the
            tokens are no full grid.
    """

    source = "CSWin, arXiv 2107.00652"
    policies = CONVOLUTION_POLICIES
    takes_coords = False
    reads_neighbours = True
    by_block = ("convs",)
    renamed = RENAMED

    def __init__(self, *, kernel_size: int = 3, **context: Any) -> None:
        super().__init__(**context)
        check_kernel_size(kernel_size)
        if len(self.grid_size) != 2:
            raise ValueError(f"grid_size={self.grid_size}: lepe stands on two axes")
        self.convs = nn.ModuleList(SizedConv2d(self.dim, kernel_size, **self.factory) for _ in range(self.depth))

    def reset_parameters(self) -> None:
        for conv in self.convs:
            conv.reset_parameters()  # type: ignore[operator]

    def no_weight_decay(self) -> set[str]:
        return set()  # ordinary convolutions

    def mix(
        self, attended: Tensor, v: Tensor, grid: Grid, *, layer: int = 0, weights: AttentionWeights | None = None
    ) -> Tensor:
        self.check_axes(grid)
        if not grid.dense:
            raise ValueError(
                "lepe needs the full map of tokens: its convolution is undefined where patches are dropped"
            )
        # Channels last in memory throughout, as attention leaves them: half the time of the other order.
        values = v[:, :, grid.prefix :].transpose(1, 2).flatten(2)  # (B, N_spatial, dim)
        values = values.unflatten(1, grid.size).permute(0, 3, 1, 2)  # (B, dim, height, width)
        local = self._convolve(values, self.convs[layer], grid).permute(0, 2, 3, 1).flatten(1, 2)
        local = local.unflatten(2, (self.num_heads, -1)).transpose(1, 2).to(attended.dtype)
        prefix, spatial = attended[:, :, : grid.prefix], attended[:, :, grid.prefix :]  # (B, heads, N, head_dim)
        return torch.cat((prefix, spatial + local), dim=2) if grid.prefix else spatial + local

    def _convolve(self, values: Tensor, conv: Any, grid: Grid) -> Tensor:
        if grid.window is None:
            return conv(values, self.grid_size, self.main_policy, grid.size)
        (height, width), (rows, columns) = values.shape[-2:], grid.window
        padded = F.pad(values, (0, -width % columns, 0, -height % rows))
        tiles = padded.unflatten(3, (-1, columns)).unflatten(2, (-1, rows))  # (B, dim, n, rows, m, columns)
        batch, dim, n, _, m, _ = tiles.shape
        tiles = tiles.permute(0, 2, 4, 1, 3, 5).reshape(batch * n * m, dim, rows, columns)
        tiles = conv(tiles, self.grid_size, self.main_policy, grid.size).reshape(batch, n, m, dim, rows, columns)
        whole = tiles.permute(0, 3, 1, 4, 2, 5).reshape(batch, dim, n * rows, m * columns)
        return whole[..., :height, :width]
