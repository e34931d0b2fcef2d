"""What small networks on offsets and distances are made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from visionpe.precision import WideLayerNorm, WideLinear
from visionpe.watching import is_watched


class ScalarLinear(nn.Module):
    """A linear layer of one number, with the parameters of one: libraries of integer arithmetic refuse that width.

    Args:
        out: Width of the result.
        factory: ``device`` and ``dtype``.
    """

    def __init__(self, out: int, **factory: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out, 1, **factory))
        self.bias = nn.Parameter(torch.empty(out, **factory))
        nn.init.uniform_(self.weight, -1, 1)  # as a linear layer of width 1 begins
        nn.init.uniform_(self.bias, -1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., 1)`` to ``(..., out)``."""
        return torch.addcmul(self.bias.to(x.dtype), x, self.weight[:, 0].to(x.dtype))


# Functions of their parameters and of what they are given; dropout too, in evaluation.
_FUNCTIONS = (nn.Sequential, nn.ReLU, nn.Dropout, WideLinear, WideLayerNorm, ScalarLinear)


def parameters_of(network: nn.Module) -> tuple[Tensor, ...]:
    """The parameters of a network that in evaluation is a function of them; none if it may be more than that.

    More are layers of another class, such as adapters of low rank, and layers that are listened to.
    """
    found: list[Tensor] = []
    waiting = [network]
    while waiting:  # `modules()` and `parameters()` take longer than comparing what they give
        layer = waiting.pop()
        if type(layer) not in _FUNCTIONS or is_watched(layer):
            return ()
        found += [parameter for parameter in layer._parameters.values() if parameter is not None]
        waiting += [inner for inner in layer._modules.values() if inner is not None]
    return tuple(found)
