"""STRING: rotations in a learned orthogonal basis of every head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from visionpe.encodings.rotary.basis import ChangedBasis, skew_part
from visionpe.registry import register_encoding


@register_encoding("string")
class CayleyString(ChangedBasis):
    """Queries and keys become ``P q`` and ``P k`` before they turn, P orthogonal and the identity at first.

    Source: "Learning the RoPEs: Better 2D and 3D Position Encodings with STRING", arXiv 2502.02562, its Cayley form:
    ``P = (I - S) (I + S)^-1`` with S the skew part of ``skew`` ``(depth, heads, head_dim, head_dim)``. Every encoding
    that depends on the offset alone, as exponentials of matrices that commute, is of this form over rotations. Written
    ``"string(rope_mixed)"``.

    Args:
        context: See :class:`~visionpe.encodings.rotary.basis.ChangedBasis`.
    """

    source = "STRING, arXiv 2502.02562"
    stacked = (("skew", 0),)
    made_of = ("skew",)

    def __init__(self, **context: Any) -> None:
        super().__init__(**context)
        self.skew = self.squares()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.zeros_(self.skew)

    def compute(self, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        s = skew_part(parameters[0])
        eye = torch.eye(s.shape[-1], dtype=s.dtype, device=s.device)
        transposed = torch.linalg.solve(eye - s, eye + s)  # of P: of rows
        return transposed, transposed
