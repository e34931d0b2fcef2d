"""CARoPE: rotary positions whose frequencies follow from the tokens."""

from __future__ import annotations

from math import expm1, log
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionpe.base import PositionEncoding
from visionpe.checks import check_choice, check_count, check_number
from visionpe.encodings.rotary.base import WideParameters
from visionpe.encodings.rotary.pairs import rotate_pairs
from visionpe.grid import Grid
from visionpe.policy.functions.positions import POSITION_POLICIES, rescale_positions
from visionpe.precision import WideLinear, wide_dtype, without_autocast
from visionpe.ranges import MAX_DIM
from visionpe.registry import register_encoding

Layout = Literal["adjacent", "half"]


@register_encoding("carope")
class ContextAwareRoPE(WideParameters, PositionEncoding):
    """A token turns a head by as much as the tokens up to it say: pair i by the sum of ``f(x_t) ** i``.

    Source: "Context-aware Rotary Position Embedding", arXiv 2507.23083: ``f(x) = 1 / (softplus(x W) + 1)``, a number
    between 0 and 1 for every head, of the tokens that attention is given; on one axis, for i from 1 to the number of
    pairs, this is the paper's, and with a number that no token changes it is RoPE. Ours is what becomes of it on a
    grid: f has a number for every axis; the first share of the pairs turns by the sum along the own row, from its
    start to the token, the last by that along the own column, the rest of the axes between them, each counting i from
    1. So what lies between two tokens of a row says how far they are apart; across rows, both from their start.

    Prefix tokens do not turn, nor count. In windows sums start at the edge of the window. Angles are computed in at
    least float32.

    Args:
        theta: Base of the RoPE that training starts from: all ``x W`` have a learned summand for which ``f ** bands``
            is ``1 / theta``, and W starts at zero. None: no summand, as in the formula, and a random W; above 1.
        layout: Which channels are a pair, see :func:`~visionpe.encodings.rotary.pairs.rotate_pairs`.
        token_dim: Width of the tokens, where it is not that of all heads together; backbones tell it.
        context: See :class:`~visionpe.base.PositionEncoding`. Policy ``extrapolate`` takes sums as they are;
            ``interpolate`` in tokens of the trained grid; ``rescale(a)`` between the two.

    Raises:
        ValueError: If an option lies outside its range, or a head has no pair for each axis; in use, if attention does
            not tell its tokens, or they are no full grid.
    """

    source = "CARoPE, arXiv 2507.23083, on every axis"
    policies = POSITION_POLICIES
    takes_coords = False
    reads_neighbours = True
    reads_tokens = True
    by_block = ("frequency",)

    def __init__(
        self, *, theta: float | None = 100.0, layout: Layout = "adjacent", token_dim: int | None = None, **context: Any
    ) -> None:
        super().__init__(**context)
        self.theta = None if theta is None else check_number("theta", theta, above=1, high=1e12)
        check_choice("layout", layout, Layout)
        axes = len(self.grid_size)
        self.layout, self.bands = layout, self.head_dim // (2 * axes)
        if not self.bands or self.head_dim % 2:
            raise ValueError(
                f"dim={self.dim} and num_heads={self.num_heads} give head dimension {self.head_dim}; carope turns "
                f"channel pairs on {axes} axes and needs an even one of {2 * axes} or more"
            )
        width = self.dim if token_dim is None else check_count("token_dim", token_dim, 1, MAX_DIM)
        self.token_dim = width
        self.frequency = nn.ModuleList(
            WideLinear(width, axes * self.num_heads, bias=theta is not None, **self.factory) for _ in range(self.depth)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for layer in self.frequency:
            assert isinstance(layer, nn.Linear)
            layer.reset_parameters()
            if self.theta is not None:
                nn.init.zeros_(layer.weight)
                wanted = expm1(log(self.theta) / self.bands)  # of softplus
                nn.init.constant_(layer.bias, wanted + log(-expm1(-wanted)))

    def angles(self, tokens: Tensor, grid: Grid, *, layer: int) -> Tensor:
        """What every pair turns by, ``(B, heads, N, head_dim / 2)``, radians.

        Args:
            tokens: ``(B, N, token_dim)``, prefix tokens first.
            grid: Where they stand.
            layer: The block that asks.
        """
        dtype = wide_dtype(tokens)
        scores = self.frequency[layer](tokens[:, grid.prefix :].to(dtype))
        logs = -F.softplus(scores).log1p()  # of f
        logs = logs.unflatten(2, (grid.axes, -1)).unflatten(1, grid.size)  # (B, *size, axes, heads)
        powers = torch.arange(1, self.bands + 1, device=tokens.device, dtype=dtype)
        shares = []
        for axis, (n, trained) in enumerate(zip(grid.size, self.grid_size)):
            sums = (logs[..., axis, :, None] * powers).exp().cumsum(1 + axis)  # (B, *size, heads, bands)
            shares.append(rescale_positions(sums, n, trained, self.main_policy))
        angles = torch.cat(shares[::-1], dim=-1).flatten(1, grid.axes).transpose(1, 2)  # columns first
        still = self.head_dim // 2 - angles.shape[-1]  # pairs that no axis has
        return F.pad(angles, (0, still, grid.prefix, 0))

    def rotate(
        self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0, tokens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        self.check_axes(grid)
        if not grid.dense:
            raise ValueError("carope needs the full map of tokens: it adds up along rows and columns")
        with without_autocast(q):
            angles = self.angles(self.told(tokens, self.token_dim), grid, layer=layer).to(wide_dtype(q))
            rotation = torch.stack((angles.cos(), angles.sin()), dim=-1 if self.layout == "adjacent" else -2)
            return rotate_pairs(q, rotation, self.layout), rotate_pairs(k, rotation, self.layout)

    def extra_repr(self) -> str:
        return f"theta={self.theta}, layout={self.layout!r}, {super().extra_repr()}"
