"""FIRE: a learned function of the distance, relative to how far the image reaches."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot
from typing import Any

import torch
from torch import Tensor, nn

from visionpe.checks import check_number
from visionpe.encodings.bias.networks import ScalarLinear, parameters_of
from visionpe.encodings.bias.offset import OffsetEncoding, heads_first
from visionpe.grid import Grid
from visionpe.precision import WideLinear
from visionpe.ranges import check_width
from visionpe.registry import register_encoding


@register_encoding("fire")
class Fire(OffsetEncoding):
    """A small network turns the normalised log-distance into the bias of every head; one network a layer.

    Source: "Functional Interpolation for Relative Positions Improves Long Context Transformers", eq. 5 to 7:
    ``f(psi(d) / psi(max(L, reach)))`` with ``psi(x) = log(c x + 1)``, c and the threshold L learned. There the reach
    is the position of a causal query; tokens of an image see all others, so here it is the diagonal of the grid, and
    d the Euclidean distance. Progressive interpolation: the argument stays in 0..1 at every size.

    Args:
        hidden: Width of the network.
        c: Initial c, above 0.
        context: See :class:`~visionpe.base.PositionEncoding`. L starts at the diagonal of the trained grid.
    """

    source = "FIRE, arXiv 2310.04418"
    irregular = True
    by_block = ("mlp",)
    stacked = (("c", 0), ("threshold", 0))

    def __init__(self, *, hidden: int = 32, c: float = 0.1, **context: Any) -> None:
        super().__init__(**context)
        check_width("hidden", hidden)
        check_number("c", c, above=0, high=1e6)
        self.initial_c = c
        self.c = nn.Parameter(torch.empty(self.depth, **self.factory))
        self.threshold = nn.Parameter(torch.empty(self.depth, **self.factory))
        self.mlp = nn.ModuleList(
            nn.Sequential(
                ScalarLinear(hidden, **self.factory), nn.ReLU(), WideLinear(hidden, self.num_heads, **self.factory)
            )
            for _ in range(self.depth)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.c, self.initial_c)
        nn.init.constant_(self.threshold, hypot(*(n - 1 for n in self.grid_size)) or 1.0)

    def made_of(self, layer: int) -> Sequence[Tensor]:
        network = parameters_of(self.mlp[layer])
        return (self.c[layer], self.threshold[layer], *network) if network else ()

    def function(self, offsets: Sequence[Tensor], grid: Grid, layer: int) -> Tensor:
        mlp, distance = self.mlp[layer], self.distance(offsets, grid)
        c, threshold = (p[layer].to(distance.dtype) for p in (self.c, self.threshold))
        # The longest distance on the grid, measured as the others are.
        reach = self.distance([distance.new_ones(()) * (n - 1) for n in grid.size], grid)
        scale = (c * torch.maximum(threshold, reach)).abs()
        normalised = torch.log1p(c.abs() * distance) / torch.log1p(scale).clamp(min=1e-6)
        return heads_first(mlp(normalised[..., None]))
