"""HARoPE: a learned change of basis for every head, by its singular values."""

from __future__ import annotations

from math import expm1, log
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionpe.encodings.rotary.basis import ChangedBasis, skew_part
from visionpe.registry import register_encoding

SMALLEST = 1e-6  # of the singular values, as published


@register_encoding("harope")
class HeadAdaptiveRoPE(ChangedBasis):
    """Queries become ``M q`` and keys ``M^-T k`` before they turn: ``q M^T R M^-T k``, the identity at first.

    Source: "Head-wise Adaptive Rotary Positional Encoding", arXiv 2510.10489, and its code: ``M = U diag(s) V^T`` for
    every head and layer, U and V exponentials of the skew parts of ``skew_u`` and ``skew_v`` ``(depth, heads,
    head_dim, head_dim)``, s the softplus of ``scale`` ``(depth, heads, head_dim)`` plus 1e-6. Written
    ``"harope(rope_axial)"``.

    Args:
        context: See :class:`~visionpe.encodings.rotary.basis.ChangedBasis`.
    """

    source = "HARoPE, arXiv 2510.10489"
    stacked = (("skew_u", 0), ("skew_v", 0), ("scale", 0))
    made_of = ("skew_u", "skew_v", "scale")

    def __init__(self, **context: Any) -> None:
        super().__init__(**context)
        self.skew_u, self.skew_v = self.squares(), self.squares()
        self.scale = nn.Parameter(torch.empty(self.depth, self.num_heads, self.head_dim, **self.factory))
        self._start()

    def _start(self) -> None:
        for skew in (self.skew_u, self.skew_v):
            nn.init.zeros_(skew)
        nn.init.constant_(self.scale, log(expm1(1.0)))  # whose softplus is 1

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self._start()

    def compute(self, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        skew_u, skew_v, scale = parameters
        u, v = (torch.matrix_exp(skew_part(a)) for a in (skew_u, skew_v))
        s = F.softplus(scale) + SMALLEST
        return v @ (s[..., None] * u.mT), v @ (u.mT / s[..., None])
