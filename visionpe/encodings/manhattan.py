"""Manhattan decay: attention fades with the distance along the axes."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any

import torch
from torch import Tensor

from visionpe.grid import Grid
from visionpe.offset import OffsetEncoding
from visionpe.registry import register_encoding


@register_encoding("manhattan")
class ManhattanDecay(OffsetEncoding):
    """The weight of a pair decays by a factor a head with every step along either axis; no parameters.

    Source: "RMT: Retentive Networks Meet Vision Transformers", eq. 4 (the decay matrix). It stands inside the softmax,
    as in the published code: ``logit += decay_h (|dy| + |dx|)`` with ``decay_h = ln(1 - 2 ** (-init_value -
    decay_range h / heads))``, so that the last heads look farthest. Prefix tokens have no distance: bias 0.

    Of its two forms this is the full one. The form that attends along rows and then along columns is another
    attention, not another bias.

    Args:
        init_value: Sets the decay of the first head.
        decay_range: How far the exponents of the heads spread.
        context: See :class:`~visionpe.base.PositionEncoding`. Policy ``extrapolate`` measures distances in tokens, as
            published; ``interpolate`` in tokens of the trained grid.

    Raises:
        ValueError: If ``init_value`` is not positive or ``decay_range`` is negative.
    """

    source = "RMT, arXiv 2309.11523"
    fixed = True

    def __init__(self, *, init_value: float = 2.0, decay_range: float = 4.0, **context: Any) -> None:
        super().__init__(**context)
        if init_value <= 0:
            raise ValueError(f"init_value={init_value} must be positive: a factor of at most 0 is no decay")
        if decay_range < 0:
            raise ValueError(f"decay_range={decay_range} must be 0 or more")
        self.init_value, self.decay_range = init_value, decay_range

    def decays(self) -> list[float]:
        """The logarithm of the factor of each head, negative."""
        exponents = [self.init_value + self.decay_range * head / self.num_heads for head in range(self.num_heads)]
        return [log(1 - 2**-exponent) for exponent in exponents]

    def function(self, offsets: Sequence[Tensor], grid: Grid, layer: int) -> Tensor:
        steps = torch.zeros((), device=offsets[0].device, dtype=offsets[0].dtype)
        for d in self.scaled(offsets, grid):
            steps = steps + d.abs()
        return steps.new_tensor(self.decays()).view(-1, *[1] * steps.ndim) * steps  # (heads, ...)

    def extra_repr(self) -> str:
        return f"init_value={self.init_value}, decay_range={self.decay_range}, {super().extra_repr()}"
