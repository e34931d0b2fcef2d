"""KERPLE: kernels of the distance with learned parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from visionpe.encodings.bias.offset import OffsetEncoding
from visionpe.grid import Grid
from visionpe.registry import register_encoding

KernelName = Literal["log", "power"]


@register_encoding("kerple")
class Kerple(OffsetEncoding):
    """The logit falls with the distance d by a conditionally positive definite kernel.

    Source: KERPLE, eq. 2 and 3, on Euclidean distances of the grid: ``-r1 log(1 + r2 d)`` or ``-r1 d ** r2``, with
    r1, r2 > 0 learned per layer and head, and r2 at most 2 in the power.

    Args:
        kernel: ``log`` (the paper's best) or ``power``.
        context: See :class:`~visionpe.base.PositionEncoding`.

    Raises:
        ValueError: If ``kernel`` is neither.
    """

    source = "KERPLE, arXiv 2205.09921"
    irregular = True
    stacked = (("r1", 0), ("r2", 0))
    stacks = True

    def __init__(self, *, kernel: KernelName = "log", **context: Any) -> None:
        super().__init__(**context)
        if not isinstance(kernel, str) or kernel not in get_args(KernelName):
            raise ValueError(f"kernel={kernel!r} is unknown to kerple; allowed: {', '.join(get_args(KernelName))}")
        self.kernel = kernel
        self.r1 = nn.Parameter(torch.empty(self.depth, self.num_heads, **self.factory))
        self.r2 = nn.Parameter(torch.empty(self.depth, self.num_heads, **self.factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.r1, 0.02, 2)
        nn.init.uniform_(self.r2, 0.02, 1)

    def made_of(self, layer: int) -> Sequence[Tensor]:
        return self.r1, self.r2

    def function(self, offsets: Sequence[Tensor], grid: Grid, layer: int) -> Tensor:
        distance = self.distance(offsets, grid)
        shape = (-1, *[1] * distance.ndim)
        # A hundredth keeps both positive whatever the optimiser does, as published.
        r1, r2 = (r[layer].to(distance.dtype).clamp(min=0.01).view(shape) for r in (self.r1, self.r2))
        if self.kernel == "log":
            return -r1 * torch.log1p(r2 * distance)
        positive = distance.clamp(min=1e-12)  # the gradient of 0 ** r is not defined
        return -r1 * torch.where(distance > 0, positive ** r2.clamp(max=2), 0.0)
