"""Continuous position bias on log-spaced offsets."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any, Literal

import torch
from torch import Tensor, nn

from visionpe.checks import check_choice, check_flag, check_number
from visionpe.encodings.bias.networks import parameters_of
from visionpe.encodings.bias.offset import OffsetEncoding, all_offsets, heads_first
from visionpe.grid import Grid
from visionpe.policy.functions.positions import effective_length, rescale_positions
from visionpe.precision import WideLinear
from visionpe.ranges import check_width
from visionpe.registry import register_encoding
from visionpe.tracing import larger

Form = Literal["bounded", "raw"]


@register_encoding("cpb")
class ContinuousPositionBias(OffsetEncoding):
    """A small network turns the log-spaced offset into the bias of every head; one network a layer.

    Source: Swin Transformer V2, section 3.3: offsets over (side - 1) times 8, ``sign(d) log2(1 + |d|) / log2(8)``, a
    network 2 -> hidden -> heads with ReLU, and 16 times the sigmoid of its output.

    Args:
        hidden: Width of the network.
        form: ``bounded``, as above. ``raw``: offsets in tokens, ``sign(d) ln(1 + |d|)``, and the output as it is, with
            a bias (the first version of the paper; timm's SwinV2-CR, MaxViT and CoAtNet with ``rmlp``).
        dropout: Of the hidden layer in training, 0 to 1.
        shared: One network for all layers.
        context: See :class:`~visionpe.base.PositionEncoding`. Policy ``extrapolate`` normalises by the trained side,
            as the paper does when the window grows; ``interpolate`` by the side at hand.
    """

    source = "SwinV2, arXiv 2111.09883"
    irregular = True
    by_block = ("mlp",)

    def __init__(
        self, *, hidden: int = 512, form: Form = "bounded", dropout: float = 0.0, shared: bool = False, **context: Any
    ) -> None:
        super().__init__(**context)
        self.shared = check_flag("shared", shared)
        if self.shared:
            self.by_block = ()  # type: ignore[assignment, misc]
        check_width("hidden", hidden)
        check_choice("form", form, Form)
        check_number("dropout", dropout, 0, 1)
        self.form = form
        self.mlp = nn.ModuleList(
            nn.Sequential(
                WideLinear(len(self.grid_size), hidden, **self.factory),
                nn.Sequential(nn.ReLU(), nn.Dropout(dropout)) if dropout else nn.ReLU(),
                WideLinear(hidden, self.num_heads, bias=form == "raw", **self.factory),
            )
            for _ in range(1 if self.shared else self.depth)
        )

    def made_of(self, layer: int) -> Sequence[Tensor]:
        return parameters_of(self.mlp[0 if self.shared else layer])

    def function(self, offsets: Sequence[Tensor], grid: Grid, layer: int) -> Tensor:
        return self._at_points(self._points(offsets, grid), layer)

    def _table(self, grid: Grid, layer: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        # What the networks get holds no parameter: it is worth keeping, as they are small.
        key = (grid.size, self.policy_terms, self.grid_size, self.form, device, dtype)
        points = self.cache.get(key, lambda: self._points(all_offsets(grid, device, dtype), grid))
        return self._at_points(points, layer)

    def _at_points(self, points: Tensor, layer: int) -> Tensor:
        """The bias where the offsets, as the network measures them, are ``(..., axes)``: ``(heads, ...)``."""
        values = self.mlp[0 if self.shared else layer](points)
        return heads_first(values if self.form == "raw" else 16 * values.sigmoid())

    def _points(self, offsets: Sequence[Tensor], grid: Grid) -> Tensor:
        """Offsets as the network measures them, ``(..., axes)``."""
        if self.form == "raw":
            logs = [d.sign() * (1 + d.abs()).log() for d in self.scaled(offsets, grid)]
            return torch.stack(torch.broadcast_tensors(*logs), dim=-1)
        coordinates = []
        for d, size, trained in zip(offsets, grid.size, self.grid_size):
            # One token a side has no offset but zero.
            reach: Any = effective_length(larger(trained - 1, 1), larger(size - 1, 1), self.main_policy)
            if self.policy == "clamp":
                d = rescale_positions(d, size, trained, "clamp")
            relative = d * 8 / reach
            coordinates.append(relative.sign() * (1 + relative.abs()).log() / log(8))
        return torch.stack(torch.broadcast_tensors(*coordinates), dim=-1)
