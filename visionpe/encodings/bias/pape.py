"""PaPE: parabolas of the offset, whose shape follows from the token that asks."""

from __future__ import annotations

from math import sqrt
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionpe.attention.bias import LowRankBias
from visionpe.base import PositionEncoding
from visionpe.checks import check_choice, check_count, check_number
from visionpe.grid import Grid
from visionpe.policy.functions.positions import POSITION_POLICIES, rescale_positions
from visionpe.precision import without_autocast
from visionpe.ranges import MAX_DIM, check_width
from visionpe.registry import register_encoding

Form = Literal["parabolic", "isotropic"]


class ParabolaBias(LowRankBias):
    """Its factors hold squares of coordinates."""

    wide: ClassVar[bool] = True


@register_encoding("pape")
class ParabolicPositionEncoding(PositionEncoding):
    """The logit of a query with a key at distance d along a learned direction gets ``-a d^2 + b d``.

    Source: "Parabolic Position Encoding", arXiv 2602.01418, and its code: for every head ``parabolas`` directions,
    ``p = W x`` of a token at x; a the softplus of a linear layer on the tokens that attention is given, b another,
    both of the query. The sum over the parabolas is multiplied by ``head_dim ** -0.5``, as the products are. It is
    exactly of low rank: no N x N matrix is built. ``position`` is ``(depth, heads, parabolas, axes)``, x first.

    Args:
        parabolas: Directions of a head; 50 as published.
        form: ``isotropic``, the rotation invariant form: a alone, one for every head, and in the place of directions
            a random scale for every head that is not learned.
        prefix_position: Where prefix tokens stand along every axis, tokens; None for nowhere: pairs with one get
            nothing. -1 in the published code.
        token_dim: Width of the tokens, where it is not that of all heads together; backbones tell it.
        context: See :class:`~visionpe.base.PositionEncoding`.

    Raises:
        ValueError: If an option lies outside its range; in use, if attention does not tell its tokens.
    """

    source = "PaPE, arXiv 2602.01418"
    structure = "low rank"
    policies = POSITION_POLICIES
    reads_tokens = True
    by_block = ("shape",)

    def __init__(
        self,
        *,
        parabolas: int = 50,
        form: Form = "parabolic",
        prefix_position: float | None = None,
        token_dim: int | None = None,
        **context: Any,
    ) -> None:
        super().__init__(**context)
        self.parabolas = check_width("parabolas", parabolas)
        check_choice("form", form, Form)
        if prefix_position is not None:
            check_number("prefix_position", prefix_position, -1000, 1000)
        self.form, self.prefix_position = form, prefix_position
        axes = len(self.grid_size)
        width = self.dim if token_dim is None else check_count("token_dim", token_dim, 1, MAX_DIM)
        self.token_dim = width
        lines = parabolas if form == "parabolic" else 1
        self.shape = nn.ModuleList(
            nn.Linear(width, (2 if form == "parabolic" else 1) * self.num_heads * lines, bias=False, **self.factory)
            for _ in range(self.depth)
        )
        position = torch.empty(self.depth, self.num_heads, lines, axes, **self.factory)
        if form == "parabolic":
            self.position = nn.Parameter(position)
            self.stacked = (("position", 0),)  # type: ignore[misc]
        else:
            self.register_buffer("scales", position[:, :, 0, 0].clone())
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for layer in self.shape:
            assert isinstance(layer, nn.Linear)
            layer.reset_parameters()
        bound = 1 / sqrt(len(self.grid_size))  # as a linear layer on coordinates begins
        nn.init.uniform_(self.position if self.form == "parabolic" else self.scales, -bound, bound)

    def _projected(self, grid: Grid, layer: int, tokens: Tensor, dtype: torch.dtype) -> Tensor:
        """Where tokens stand along every direction, ``([B,] heads, N, lines)``; prefix tokens too."""
        axes = grid.positions(device=tokens.device, dtype=dtype).unbind(-1)
        prefix = 0.0 if self.prefix_position is None else self.prefix_position
        places = []
        for p, n, trained in zip(axes, grid.size, self.grid_size):
            p = F.pad(p, (grid.prefix, 0), value=prefix) - (n - 1) / 2  # small numbers have more digits
            places.append(rescale_positions(p, n, trained, self.main_policy))
        x = torch.stack(places[::-1], dim=-1)[..., None, :, :]  # ([B,] 1, N, axes), x first
        if self.form == "parabolic":
            return x @ self.position[layer].to(dtype).mT
        return x * self.scales[layer].to(dtype)[:, None, None]

    def bias(self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0, tokens: Tensor | None = None) -> ParabolaBias:
        self.check_axes(grid)
        tokens = self.told(tokens, self.token_dim)
        shape = self.shape[layer](tokens)  # (B, N, 2 * heads * lines), or of a alone
        dtype = torch.promote_types(q.dtype, torch.float32)
        with without_autocast(q):
            p = self._projected(grid, layer, tokens, dtype)
            lines = p.shape[-1] if self.form == "parabolic" else 1
            kinds = shape.to(dtype).unflatten(-1, (-1, self.num_heads, lines)).movedim(-3, 0).transpose(-3, -2)
            a = F.softplus(kinds[0])  # (B, heads, N, lines)
            slope = 2 * a * p
            height = -a * p.square()
            if self.form == "parabolic":
                slope, height = slope - kinds[1], height + kinds[1] * p
            left = torch.cat((slope, a.expand_as(slope), height.sum(-1, keepdim=True)), dim=-1) * self.head_dim**-0.5
            right = torch.cat((p, -p.square(), torch.ones_like(p[..., :1])), dim=-1)
            right = right if right.ndim == 4 else right[None]
            if grid.prefix and self.prefix_position is None:
                seen = torch.arange(grid.num_tokens, device=q.device) >= grid.prefix
                left, right = left * seen[:, None], right * seen[:, None]
            return ParabolaBias(left, right)
