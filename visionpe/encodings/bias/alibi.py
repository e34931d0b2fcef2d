"""2D ALiBi: attention fades with distance."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, log2

from torch import Tensor

from visionpe.encodings.bias.offset import OffsetEncoding
from visionpe.grid import Grid
from visionpe.registry import register_encoding


def alibi_slopes(num_heads: int) -> list[float]:
    """One slope a head: powers of ``2 ** (-8 / n)`` for n heads, n a power of two.

    Otherwise those of the next lower power of two m, then every other slope of 2 m until there are enough ("Train
    Short, Test Long", section 3).
    """
    power = 2 ** floor(log2(num_heads))
    slopes = [2 ** (-8 * i / power) for i in range(1, power + 1)]
    finer = [2 ** (-8 * i / (2 * power)) for i in range(1, 2 * power + 1, 2)]
    return slopes + finer[: num_heads - power]


@register_encoding("alibi")
class Alibi2D(OffsetEncoding):
    """The logit of a pair falls by ``slope * distance``, Euclidean, in tokens; no parameters.

    Source: CROMA, section 3 (2D-ALiBi), after "Train Short, Test Long". Prefix tokens have no distance: bias 0.

    Args:
        context: See :class:`~visionpe.base.PositionEncoding`. Policy ``extrapolate`` measures distances in tokens, as
            in the paper; ``interpolate`` in tokens of the trained grid.
    """

    source = "CROMA, arXiv 2311.00566"
    irregular = True
    fixed = True

    def function(self, offsets: Sequence[Tensor], grid: Grid, layer: int) -> Tensor:
        distance = self.distance(offsets, grid)
        key = ("slopes", distance.device, distance.dtype)
        slopes = self.cache.get(key, lambda: distance.new_tensor(alibi_slopes(self.num_heads)))
        return -slopes.view(-1, *[1] * distance.ndim) * distance  # (heads, ...)
