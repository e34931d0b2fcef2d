"""HARoPE: a learned change of basis for every head, ahead of any rotary encoding."""

from __future__ import annotations

from collections.abc import Sequence
from math import expm1, log
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionpe.base import PositionEncoding
from visionpe.encodings.rotary.base import WideParameters
from visionpe.encodings.wrappers.base import PositionWrapper
from visionpe.grid import Grid
from visionpe.kept import KeptWhileEqual, may_keep
from visionpe.precision import without_autocast
from visionpe.ranges import check_table
from visionpe.registry import HINTS, Spec, create_encodings, register_encoding

SMALLEST = 1e-6  # of the singular values, as published


@register_encoding("harope")
class HeadAdaptiveRoPE(WideParameters, PositionEncoding):
    """Queries become ``M q`` and keys ``M^-T k`` before they turn: ``q M^T R M^-T k``, the identity at first.

    Source: "Head-wise Adaptive Rotary Positional Encoding", arXiv 2510.10489, and its code: ``M = U diag(s) V^T`` for
    every head and layer, U and V exponentials of the skew parts of ``skew_u`` and ``skew_v`` ``(depth, heads,
    head_dim, head_dim)``, s the softplus of ``scale`` ``(depth, heads, head_dim)`` plus 1e-6. What does not turn, as
    prefix tokens, meets as it did without M. Written ``"harope(rope_axial)"``; a policy is that of the encoding
    underneath.

    Args:
        over: The encoding underneath: one whose only site is ``rotate``, which leaves the width of heads.
        context: See :class:`~visionpe.base.PositionEncoding`.

    Raises:
        ValueError: If ``over`` is not one rotary encoding.
    """

    source = "HARoPE, arXiv 2510.10489"
    hands_on_hints = True
    stacked = (("skew_u", 0), ("skew_v", 0), ("scale", 0))

    def __init__(self, *, over: Spec = "rope_axial", **context: Any) -> None:
        super().__init__(**{k: v for k, v in context.items() if k not in HINTS})
        inner = create_encodings(over, **{k: v for k, v in context.items() if k != "policy"})
        if len(inner) == 1 and isinstance(inner[0], PositionWrapper):
            raise ValueError(f"over={over!r}: put the wrapper around harope instead")
        if len(inner) != 1 or inner[0].sites() != ("rotate",) or inner[0].widens:
            raise ValueError(
                f"over={over!r} is not one rotary encoding; allowed: rope_axial, rope_mixed and others that only rotate"
            )
        self.over = inner[0]
        for fact in ("takes_coords", "whole_coords", "takes_pooled", "reads_neighbours"):
            setattr(self, fact, getattr(self.over, fact))
        heads = (self.depth, self.num_heads, self.head_dim)
        square = check_table("dim", self.dim, *heads, self.head_dim)
        self.skew_u = nn.Parameter(torch.empty(square, **self.factory))
        self.skew_v = nn.Parameter(torch.empty(square, **self.factory))
        self.scale = nn.Parameter(torch.empty(heads, **self.factory))
        self.kept = KeptWhileEqual()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for skew in (self.skew_u, self.skew_v):
            nn.init.zeros_(skew)
        nn.init.constant_(self.scale, log(expm1(1.0)))  # whose softplus is 1
        self.over.reset_parameters()

    def no_weight_decay(self) -> set[str]:
        return {"skew_u", "skew_v", "scale", *(f"over.{key}" for key in self.over.no_weight_decay())}

    def set_input_grid(self, grid_size: Sequence[int]) -> None:
        self.over.set_input_grid(grid_size)

    def train(self, mode: bool = True) -> HeadAdaptiveRoPE:
        if mode:  # there every pass has other numbers
            self.kept.clear()
        return super().train(mode)

    def logit_factor(self, grid: Grid) -> float:
        return self.over.logit_factor(grid)

    def of_block(self, x: Tensor, grid: Grid, *, layer: int) -> dict[str, Any]:
        return self.over.of_block(x, grid, layer=layer)

    def bases(self, layer: int) -> tuple[Tensor, Tensor]:
        """``M^T`` for the queries of a layer and ``M^-1`` for its keys, in at least float32: ``(heads, d, d)`` each."""
        sources = (self.skew_u[layer], self.skew_v[layer], self.scale[layer])
        if may_keep(sources) and not self.training:
            return self.kept.get(layer, None, sources, lambda: self._bases(*sources))
        return self._bases(*sources)

    @staticmethod
    def _bases(skew_u: Tensor, skew_v: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(scale.dtype, torch.float32)
        u, v = (torch.matrix_exp((a - a.mT) / 2) for a in (skew_u.to(wide), skew_v.to(wide)))
        s = F.softplus(scale.to(wide)) + SMALLEST
        return v @ (s[..., None] * u.mT), v @ (u.mT / s[..., None])

    def rotate(self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0) -> tuple[Tensor, Tensor]:
        with without_autocast(q):
            q_basis, k_basis = self.bases(layer)
            wide = torch.promote_types(q.dtype, q_basis.dtype)
            turned = self.over.rotate(q.to(wide) @ q_basis.to(wide), k.to(wide) @ k_basis.to(wide), grid, layer=layer)
            return turned[0].to(q.dtype), turned[1].to(k.dtype)
