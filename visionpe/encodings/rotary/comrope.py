"""Rotary position embedding with trainable commuting angle matrices."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from visionpe.base import PositionEncoding
from visionpe.checks import check_choice, check_number
from visionpe.encodings.rotary.base import WideParameters
from visionpe.encodings.rotary.blocks import check_block_size, turn_blocks
from visionpe.grid import Grid
from visionpe.policy.functions.positions import effective_length
from visionpe.precision import without_autocast
from visionpe.ranges import check_init_std
from visionpe.registry import register_encoding

Form = Literal["ld", "ap"]


@register_encoding("comrope")
class CommutingRoPE(WideParameters, PositionEncoding):
    """Blocks of channels turn in all their dimensions at once, by learned matrices that commute.

    Source: "ComRoPE: Scalable and Robust Rotary Position Embedding Parameterized by Trainable Commuting Angle
    Matrices", section 4. A block of queries and keys is multiplied by ``R = exp(sum_a p_a A_a)``, with ``A = P - P^T``
    of a learned P. Because the matrices of the axes commute, a query at p and a key at r meet at ``R(p - r)``.

    ``generators`` (P) is ``(depth, heads, blocks, block, block)``; in form ``ld`` (linearly dependent) ``multiplier``
    is ``(depth, axes, blocks)`` and ``A_a = multiplier_a A``; in form ``ap`` (axial partition) block j turns along
    axis ``j mod axes`` alone. Axes are in the order of the grid: (row, column) or (frame, row, column).

    Coordinates are (index + 0.5) / side. As published, frames are divided by the height of the picture too.

    Args:
        form: ``ld`` or ``ap``.
        block_size: Channels that turn together.
        init_std: Standard deviation of the initial generators.
        prefix_position: Where prefix tokens stand on every axis; 0.5 in the published code. None: they do not turn.
        context: See :class:`~visionpe.base.PositionEncoding`. Policy ``interpolate``, as published, spans 0 to 1 at
            every size; ``extrapolate`` keeps the step of the trained grid.

    Raises:
        ValueError: If ``form`` is unknown, ``block_size`` does not divide the head dimension, or there are fewer
            blocks than axes in form ``ap``.
    """

    source = "ComRoPE, arXiv 2506.03737"
    irregular = True
    stacked = (("generators", 0), ("multiplier", 0))
    policies = ("interpolate", "extrapolate", "rescale")

    def __init__(
        self,
        *,
        form: Form = "ld",
        block_size: int = 4,
        init_std: float = 1.0,
        prefix_position: float | None = None,
        **context: Any,
    ) -> None:
        super().__init__(**context)
        check_choice("form", form, Form)
        check_init_std(init_std)
        if prefix_position is not None:
            check_number("prefix_position", prefix_position, -1000, 1000)
        check_block_size(block_size, self.head_dim)
        blocks, axes = self.head_dim // block_size, len(self.grid_size)
        if form == "ap" and blocks < axes:
            raise ValueError(f"block_size={block_size} leaves {blocks} blocks for {axes} axes; form='ap' needs as many")
        self.form, self.block_size, self.init_std, self.prefix_position = form, block_size, init_std, prefix_position
        shape = (self.depth, self.num_heads, blocks, block_size, block_size)
        self.generators = nn.Parameter(torch.empty(shape, **self.factory))
        self.multiplier: nn.Parameter | None = None
        if form == "ld":
            self.multiplier = nn.Parameter(torch.empty(self.depth, axes, blocks, **self.factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.generators, std=self.init_std)
        if self.multiplier is not None:
            nn.init.normal_(self.multiplier)

    def angles(self, layer: int, dtype: torch.dtype) -> Tensor:
        """The matrix of every axis, skew-symmetric: ``(axes, heads, blocks, block, block)``."""
        p = self.generators[layer].to(dtype)
        skew = p - p.mT  # (heads, blocks, block, block)
        if self.multiplier is not None:
            share = self.multiplier[layer].to(dtype)  # (axes, blocks)
        else:
            axes = torch.arange(len(self.grid_size), device=p.device)
            share = (torch.arange(p.shape[1], device=p.device) % len(axes) == axes[:, None]).to(dtype)
        return share[:, None, :, None, None] * skew

    def _sides(self, size: tuple[int, ...]) -> tuple[int, ...]:
        return (size[1], *size[1:]) if len(size) == 3 else size

    def coordinates(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        """Coordinates along each axis: ``(n,)`` where the grid is dense, else ``([B,] N)``."""
        if grid.dense:
            places = grid.axis_positions(device=device, dtype=dtype)
        else:
            places = list(grid.positions(device=device, dtype=dtype).unbind(-1))
        pairs = zip(self._sides(self.grid_size), self._sides(grid.size))
        sides = [effective_length(trained, now, self.main_policy) for trained, now in pairs]
        return [(p + 0.5) / side for p, side in zip(places, sides)]

    def rotation(self, grid: Grid, *, layer: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The matrix of every token, ``([B,] heads, N, blocks, block, block)``, in at least float32."""
        angles = self.angles(layer, torch.promote_types(dtype, torch.float32))  # (axes, heads, blocks, block, block)
        self.check_axes(grid)

        def turned(p: Tensor, a: Tensor) -> Tensor:
            return torch.linalg.matrix_exp(p[..., None, :, None, None, None] * a[:, None])

        coordinates = self.coordinates(grid, device, angles.dtype)
        rotation = turned(coordinates[0], angles[0])
        for p, a in zip(coordinates[1:], angles[1:]):
            # The matrices commute: exponentials of each axis, height + width of them instead of their product.
            other = turned(p, a)
            if not grid.dense:
                rotation = rotation @ other
                continue
            # One product of a row's matrix with those of all columns, not one for every token.
            rotation = torch.einsum("hnjdc,hmjce->hnmjde", rotation, other).flatten(1, 2)
        if grid.prefix:
            if self.prefix_position is None:
                still = torch.eye(self.block_size, device=device, dtype=rotation.dtype)
            else:
                still = torch.linalg.matrix_exp(self.prefix_position * angles.sum(0))[:, None]
            shape = (*rotation.shape[:-4], grid.prefix, *rotation.shape[-3:])
            rotation = torch.cat((still.expand(shape), rotation), dim=-4)
        return rotation

    def rotate(self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0) -> tuple[Tensor, Tensor]:
        with without_autocast(q):
            rotation = self.rotation(grid, layer=layer, device=q.device, dtype=q.dtype)
            return turn_blocks(q, rotation), turn_blocks(k, rotation)

    def extra_repr(self) -> str:
        return f"form={self.form!r}, block_size={self.block_size}, {super().extra_repr()}"
