"""Dynamic position bias: a small network on the offset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from visionpe.checks import check_count
from visionpe.encodings.bias.networks import parameters_of
from visionpe.encodings.bias.offset import OffsetEncoding, heads_first
from visionpe.grid import Grid
from visionpe.precision import WideLayerNorm, WideLinear
from visionpe.registry import register_encoding


@register_encoding("dpb")
class DynamicPositionBias(OffsetEncoding):
    """A network of four linear layers turns the offset into the bias of every head; one network a layer.

    Source: CrossFormer, section 3.3 (DPB). The offset enters in tokens, unnormalised; LayerNorm and ReLU stand before
    the second to fourth linear layer.

    Args:
        hidden: Width of the network; default a sixteenth of ``dim``, as published, but no less than 3: of two channels
            a LayerNorm leaves a sign, and of one nothing.
        context: See :class:`~visionpe.base.PositionEncoding`.
    """

    source = "CrossFormer, arXiv 2108.00154"
    irregular = True
    by_block = ("mlp",)

    def __init__(self, *, hidden: int | None = None, **context: Any) -> None:
        super().__init__(**context)
        width = max(3, self.dim // 4 // 4) if hidden is None else check_count("hidden", hidden, 1, 4096)
        self.mlp = nn.ModuleList(self._network(width) for _ in range(self.depth))

    def _network(self, width: int) -> nn.Sequential:
        layers: list[nn.Module] = [WideLinear(len(self.grid_size), width, **self.factory)]
        for out in (width, width, self.num_heads):
            layers += [WideLayerNorm(width, **self.factory), nn.ReLU(), WideLinear(width, out, **self.factory)]
        return nn.Sequential(*layers)

    def made_of(self, layer: int) -> Sequence[Tensor]:
        return parameters_of(self.mlp[layer])

    def function(self, offsets: Sequence[Tensor], grid: Grid, layer: int) -> Tensor:
        mlp = self.mlp[layer]
        points = torch.stack(torch.broadcast_tensors(*self.scaled(offsets, grid)), dim=-1)  # (..., axes)
        return heads_first(mlp(points))
