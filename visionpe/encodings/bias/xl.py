"""Transformer-XL's relative positions, along each axis of the grid."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from visionpe.attention.bias import LowRankBias
from visionpe.base import PositionEncoding
from visionpe.encodings.rotary.rope_axial import frequency_ladder
from visionpe.grid import Grid
from visionpe.policy.functions.positions import POSITION_POLICIES, rescale_positions
from visionpe.precision import without_autocast
from visionpe.ranges import check_base, check_init_std, check_table, check_width, draw_table
from visionpe.registry import register_encoding


@register_encoding("xl")
class TransformerXL(PositionEncoding):
    """The logit gets ``(q + v) . W r(d) + u . k``: r are sines and cosines of the offset d, along every axis.

    Source: "Transformer-XL", arXiv 1901.02860, section 3.3, terms b to d, with ``r`` of each axis in its place and a W
    for each. Sines of a difference are sums of products of sines, so it is exactly of low rank: no N x N matrix and no
    shift of one. ``weight`` (W) is ``(depth, heads, axes, 2 bands, head_dim)``, sines first, axes in the order of the
    grid; ``content`` (u) and ``position`` (v) are ``(depth, heads, head_dim)``. The sum is multiplied by ``head_dim **
    -0.5``, as the products are; what touches a prefix token has u . k alone.

    Args:
        bands: Frequencies an axis; the paper has half of ``dim`` of them on its one axis.
        theta: Base of the frequencies, ``theta ** (-i / bands)`` radians a token.
        init_std: Standard deviation of the initial parameters.
        context: See :class:`~visionpe.base.PositionEncoding`.
    """

    source = "Transformer-XL, arXiv 1901.02860"
    structure = "low rank"
    policies: ClassVar[tuple[str, ...]] = POSITION_POLICIES
    stacked = (("weight", 0), ("content", 0), ("position", 0))

    def __init__(self, *, bands: int = 16, theta: float = 10000.0, init_std: float = 0.02, **context: Any) -> None:
        super().__init__(**context)
        self.bands, self.theta = check_width("bands", bands), check_base("theta", theta)
        self.init_std = check_init_std(init_std)
        heads = (self.depth, self.num_heads)
        shape = check_table("bands", bands, *heads, len(self.grid_size), 2 * bands, self.head_dim)
        self.weight = nn.Parameter(torch.empty(shape, **self.factory))
        self.content = nn.Parameter(torch.empty(*heads, self.head_dim, **self.factory))
        self.position = nn.Parameter(torch.empty(*heads, self.head_dim, **self.factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for parameter in (self.weight, self.content, self.position):
            draw_table(parameter, self.init_std)

    def _waves(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Sines and cosines of every spatial token along every axis, ``([B,] 1, N, axes, 2, bands)``."""
        ladder = frequency_ladder(self.theta, self.bands, device).to(dtype)
        waves = []
        for p, n, trained in zip(grid.positions(device=device, dtype=dtype).unbind(-1), grid.size, self.grid_size):
            angles = rescale_positions(p, n, trained, self.main_policy)[..., None] * ladder
            waves.append(torch.stack((angles.sin(), angles.cos()), dim=-2))
        return torch.stack(waves, dim=-3)[..., None, :, :, :, :]

    def bias(self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0) -> LowRankBias:
        self.check_axes(grid)
        dtype = torch.promote_types(q.dtype, torch.float32)
        with without_autocast(q):
            u, v, weight = (t[layer].to(dtype) for t in (self.content, self.position, self.weight))
            waves = self._waves(grid, q.device, dtype)
            sin, cos = waves.unbind(-2)  # ([B,] 1, N, axes, bands)
            asks = q[..., grid.prefix :, :].to(dtype) + v[:, None]  # (B, heads, N, head_dim)
            a, b = torch.einsum("bhnd,haid->bhnai", asks, weight).unflatten(-1, (2, -1)).unbind(-2)
            # a sin(p - r) + b cos(p - r), of a query at p and a key at r
            left = torch.cat((a * sin + b * cos, b * sin - a * cos), dim=-1).flatten(-2)
            right = torch.cat((cos, sin), dim=-1).flatten(-2)
            right = right if right.ndim == 4 else right[None]
            if grid.prefix:
                left, right = (nn.functional.pad(t, (0, 0, grid.prefix, 0)) for t in (left, right))
            heard = (k.to(dtype) * u[:, None]).sum(-1, keepdim=True)  # u . k
            left = torch.cat((left, torch.ones_like(left[..., :1])), dim=-1) * self.head_dim**-0.5
            right = torch.cat((right.expand(*heard.shape[:-1], -1), heard), dim=-1)
            return LowRankBias(left, right)
