"""Conditional position encoding: a convolution between the blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from visionpe.base import PositionEncoding
from visionpe.grid import Grid
from visionpe.registry import register_encoding
from visionpe.resize import POSITION_POLICIES, resize_map


@register_encoding("cpe")
class ConditionalPositionEncoding(PositionEncoding):
    """A depthwise convolution over the map of tokens, plus the identity, after the first block.

    Source: "Conditional Positional Encodings for Vision Transformers", section 3.3 (the generator, PEG); zero padding
    at the border is what tells the tokens where they are. Prefix tokens pass by.

    Args:
        kernel_size: Side of the kernel in tokens, odd.
        layers: Blocks after which a convolution stands, each with its own weights.
        context: See :class:`~visionpe.base.PositionEncoding`. Policy ``extrapolate`` convolves the map as it is;
            ``interpolate`` convolves it at the trained size and resizes the result, so that the kernel spans as much
            of the image as in training.

    Raises:
        ValueError: If ``kernel_size`` is even or a layer does not exist.
    """

    source = "CPVT, arXiv 2102.10882"
    policies = POSITION_POLICIES
    takes_coords = False

    def __init__(self, *, kernel_size: int = 3, layers: Sequence[int] = (0,), **context: Any) -> None:
        super().__init__(**context)
        if kernel_size % 2 == 0 or kernel_size < 1:
            raise ValueError(f"kernel_size={kernel_size} must be odd and positive")
        if not layers or not all(0 <= layer < self.depth for layer in layers):
            raise ValueError(f"layers={tuple(layers)} must lie in 0..{self.depth - 1}")
        self.layers = tuple(layers)
        self.proj = nn.ModuleList(
            nn.Conv2d(self.dim, self.dim, kernel_size, padding=kernel_size // 2, groups=self.dim, **self.factory)
            for _ in self.layers
        )

    def no_weight_decay(self) -> set[str]:
        return set()  # an ordinary convolution

    def refine(self, x: Tensor, grid: Grid, *, layer: int = 0) -> Tensor:
        if layer not in self.layers:
            return x
        if not grid.dense:
            raise ValueError("cpe needs the full map of tokens: its convolution is undefined where patches are dropped")
        prefix, tokens = x[:, : grid.prefix], x[:, grid.prefix :]
        tokens = tokens.transpose(1, 2).unflatten(2, grid.size)  # (B, dim, height, width)
        conv = self.proj[self.layers.index(layer)]
        if self.policy == "extrapolate" or self._at_trained_size(grid):
            moved = conv(tokens)
        else:
            moved = resize_map(conv(resize_map(tokens, self.grid_size, "bilinear_antialias")), grid.size, "bilinear")
        tokens = (tokens + moved).flatten(2).transpose(1, 2)
        return torch.cat((prefix, tokens), dim=1) if grid.prefix else tokens

    def _at_trained_size(self, grid: Grid) -> bool:
        # An exported graph serves every size, so it cannot branch on one.
        return not torch.compiler.is_exporting() and grid.size == self.grid_size
