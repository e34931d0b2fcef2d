"""Continuous position bias on log-spaced offsets."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any

import torch
from torch import Tensor, nn

from visionpe.encodings.bias.offset import OffsetEncoding, heads_first
from visionpe.grid import Grid
from visionpe.policy.functions.positions import effective_length, rescale_positions
from visionpe.precision import WideLinear
from visionpe.ranges import check_width
from visionpe.registry import register_encoding
from visionpe.tracing import larger


@register_encoding("cpb")
class ContinuousPositionBias(OffsetEncoding):
    """A small network turns the log-spaced offset into the bias of every head; one network a layer.

    Source: Swin Transformer V2, section 3.3: offsets over (side - 1) times 8, ``sign(d) log2(1 + |d|) / log2(8)``, a
    network 2 -> hidden -> heads with ReLU, and 16 times the sigmoid of its output.

    Args:
        hidden: Width of the network.
        context: See :class:`~visionpe.base.PositionEncoding`. Policy ``extrapolate`` normalises by the trained side,
            as the paper does when the window grows; ``interpolate`` by the side at hand.
    """

    source = "SwinV2, arXiv 2111.09883"
    irregular = True
    by_block = ("mlp",)

    def __init__(self, *, hidden: int = 512, **context: Any) -> None:
        super().__init__(**context)
        check_width("hidden", hidden)
        self.mlp = nn.ModuleList(
            nn.Sequential(
                WideLinear(len(self.grid_size), hidden, **self.factory),
                nn.ReLU(),
                WideLinear(hidden, self.num_heads, bias=False, **self.factory),
            )
            for _ in range(self.depth)
        )

    def function(self, offsets: Sequence[Tensor], grid: Grid, layer: int) -> Tensor:
        mlp = self.mlp[layer]
        coordinates = []
        for d, size, trained in zip(offsets, grid.size, self.grid_size):
            # One token a side has no offset but zero.
            reach: Any = effective_length(larger(trained - 1, 1), larger(size - 1, 1), self.main_policy)
            if self.policy == "clamp":
                d = rescale_positions(d, size, trained, "clamp")
            relative = d * 8 / reach
            coordinates.append(relative.sign() * (1 + relative.abs()).log() / log(8))
        points = torch.stack(torch.broadcast_tensors(*coordinates), dim=-1)  # (..., axes)
        return heads_first(16 * mlp(points).sigmoid())
