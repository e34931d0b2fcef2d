"""LieRE: rotations of blocks of channels, by learned generators that need not commute."""

from __future__ import annotations

from math import pi, prod
from typing import Any

import torch
from torch import Tensor, nn

from visionpe.base import PositionEncoding
from visionpe.encodings.rotary.base import WideParameters
from visionpe.encodings.rotary.blocks import check_block_size, turn_blocks
from visionpe.grid import Grid
from visionpe.kept import Keeps, may_keep
from visionpe.policy.functions.positions import POSITION_POLICIES, effective_length
from visionpe.precision import without_autocast
from visionpe.ranges import check_table
from visionpe.registry import register_encoding
from visionpe.tracing import larger

# Of the rotations of all blocks of a model together, which are kept in evaluation on a CPU.
KEPT_BYTES = 64 * 2**20


@register_encoding("liere")
class LieRotation(Keeps, WideParameters, PositionEncoding):
    """A block of queries and keys is multiplied by ``exp(sum_a x_a A_a)``, A skew, learned for every axis and head.

    Source: "LieRE: Lie Rotational Positional Encodings", arXiv 2406.10322, and its code. ``generators`` is ``(axes,
    depth, heads, blocks, block, block)``, axes in the order of the grid, of which the part above the diagonal counts:
    ``A = U - U^T``. Token i of n along an axis that was trained at m stands at ``i / (n - 1)`` times ``n / m``.

    The matrices of the axes do not commute, so that logits depend on more than the offset (``comrope`` has those that
    do), and every token needs an exponential of its own: slow for large blocks.

    Args:
        block_size: Channels that turn together; the paper has 8 and 64 (all of a head). Default: 8, or the larger of 4
            and 2 that divides the head dimension.
        context: See :class:`~visionpe.base.PositionEncoding`. Policy ``extrapolate``, as published, keeps the step of
            training; ``interpolate`` spans 0 to 1 at every size.

    Raises:
        ValueError: If ``block_size`` does not divide the head dimension.
    """

    source = "LieRE, arXiv 2406.10322"
    irregular = True
    stacked = (("generators", 1),)
    policies = POSITION_POLICIES

    def __init__(self, *, block_size: int | None = None, **context: Any) -> None:
        super().__init__(**context)
        if block_size is None:
            block_size = next((n for n in (8, 4, 2) if not self.head_dim % n), 8)
        self.block_size = check_block_size(block_size, self.head_dim)
        blocks = self.head_dim // block_size
        shape = (len(self.grid_size), self.depth, self.num_heads, blocks, block_size, block_size)
        self.generators = nn.Parameter(torch.empty(check_table("dim", self.dim, *shape), **self.factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.generators, 0, 2 * pi)

    def coordinates(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Of every token, ``([B,] N, axes)``."""
        units = []
        for n, trained in zip(grid.size, self.grid_size):
            steps = larger(n - 1, 1)
            units.append(effective_length(steps * trained / n, steps, self.main_policy))
        places = grid.positions(device=device, dtype=dtype).unbind(-1)
        return torch.stack([p / unit for p, unit in zip(places, units)], dim=-1)

    def rotation(self, grid: Grid, *, layer: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The matrix of every token, ``([B,] heads, N, blocks, block, block)``, in at least float32."""
        self.check_axes(grid)
        sources, wide = (self.generators[:, layer],), torch.promote_types(dtype, torch.float32)

        def build() -> Tensor:
            upper = sources[0].to(wide).triu(1)
            coordinates = self.coordinates(grid, device, wide)
            angles = torch.einsum("...na,ahjde->...hnjde", coordinates, upper - upper.mT)
            rotation = torch.linalg.matrix_exp(angles.contiguous())
            if not grid.prefix:
                return rotation
            still = torch.eye(self.block_size, device=device, dtype=wide)
            shape = (*rotation.shape[:-4], grid.prefix, *rotation.shape[-3:])
            return torch.cat((still.expand(shape), rotation), dim=-4)

        nbytes = prod(grid.size) * self.depth * self.dim * self.block_size * 4 if grid.dense else 0
        if not (grid.dense and not self.training and may_keep(sources) and nbytes <= KEPT_BYTES):
            return build()
        key = (grid.size, grid.prefix, grid.queries, self.policy_terms, self.grid_size, wide)
        return self.kept.get(layer, key, sources, build)

    def rotate(self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0) -> tuple[Tensor, Tensor]:
        with without_autocast(q):
            rotation = self.rotation(grid, layer=layer, device=q.device, dtype=q.dtype)
            return turn_blocks(q, rotation), turn_blocks(k, rotation)

    def extra_repr(self) -> str:
        return f"block_size={self.block_size}, {super().extra_repr()}"
