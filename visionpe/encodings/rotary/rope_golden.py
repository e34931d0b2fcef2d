"""Golden Gate RoPE: every channel pair of every head looks along a direction of its own."""

from __future__ import annotations

from math import pi, sqrt
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from visionpe.checks import check_choice, check_number
from visionpe.encodings.rotary.base import RotaryEncoding
from visionpe.encodings.rotary.pairs import Layout
from visionpe.grid import Grid
from visionpe.policy.functions.positions import effective_length
from visionpe.registry import register_encoding
from visionpe.tracing import larger

Spread = Literal["sphere", "angle"]


def spread_directions(count: int, axes: int, spread: Spread = "sphere") -> Tensor:
    """Unit vectors that fill the directions evenly, however many are taken, ``(count, axes)``, float64.

    Args:
        count: How many.
        axes: Of the space.
        spread: ``sphere``: points of a low-discrepancy sequence (powers of the root of ``x ** (axes + 1) = x + 1``),
            made normal by the inverse of its distribution, over their length. ``angle``: multiples of the golden
            angle, on two axes.
    """
    if spread == "angle":
        angles = torch.arange(count) * (pi * (sqrt(5) - 1) / 2)  # float32, as published
        return torch.stack((angles.cos(), angles.sin()), dim=-1).double()
    root = 2.0
    for _ in range(10):  # as published; it has converged to nine digits
        root = (1 + root) ** (1 / (axes + 1))
    steps = (1 / root) ** torch.arange(1, axes + 1, dtype=torch.float64)
    points = (torch.arange(1, count + 1, dtype=torch.float64)[:, None] * steps).frac()
    normal = torch.erfinv(2 * points - 1)
    return normal / normal.norm(dim=-1, keepdim=True)


@register_encoding("rope_golden")
class GoldenRoPE(RotaryEncoding):
    """The angle of a pair is ``w d . x``: magnitudes w log-spaced, directions d spread evenly over heads and pairs.

    Source: "On N-dimensional Rotary Positional Embeddings" (Jerry Xiong, 2025, jerryxio.ng/posts/nd-rope) and its
    code. An axis of n tokens reaches from -r to r, its first and last token, where r is n over the geometric mean of
    the axes: 1 on a square. No parameters; all layers alike.

    Args:
        min_freq, max_freq: Smallest and largest magnitude, radians over a half of a square image.
        spread: How directions are drawn, see :func:`spread_directions`; ``angle`` is the form for two axes alone.
        p: Share of the pairs that do not turn; here they take the place of no frequency: those that turn always reach
            from ``min_freq`` to ``max_freq``.
        layout: Channel pairs, see :class:`~visionpe.encodings.rotary.base.RotaryEncoding`; published half-split.
        context: See :class:`~visionpe.encodings.rotary.base.RotaryEncoding`. Policy ``interpolate``, as published,
            reaches from -r to r at every size; ``extrapolate`` and those that change frequencies keep the step of the
            trained grid.

    Raises:
        ValueError: If ``min_freq`` is above ``max_freq``, or ``spread`` is ``angle`` on other than two axes.
    """

    source = "Golden Gate RoPE, jerryxio.ng/posts/nd-rope"
    irregular = True
    policies = ("interpolate", *(name for name in RotaryEncoding.policies if name != "interpolate"))
    in_tokens = False

    def __init__(
        self,
        *,
        min_freq: float = 0.2,
        max_freq: float = 20.0,
        spread: Spread = "sphere",
        layout: Layout = "half",
        **context: Any,
    ) -> None:
        super().__init__(layout=layout, **context)
        for name, value in (("min_freq", min_freq), ("max_freq", max_freq)):
            check_number(name, value, above=0, high=1e6)
        if min_freq > max_freq:
            raise ValueError(f"min_freq={min_freq} is above max_freq={max_freq}; allowed: the smaller one as min_freq")
        check_choice("spread", spread, Spread)
        if spread == "angle" and len(self.grid_size) != 2:
            raise ValueError(
                f"spread={spread!r} with grid_size={self.grid_size}: angles lie in a plane; allowed: "
                f"{' or '.join(map(repr, get_args(Spread)))} on two axes, 'sphere' on others"
            )
        self.min_freq, self.max_freq, self.spread = min_freq, max_freq, spread

    def frequencies(self, layer: int, device: torch.device) -> Tensor:
        axes, pairs = len(self.grid_size), self.head_dim // 2
        still = round(self.p * pairs)
        steps = torch.linspace(0, 1, pairs - still, dtype=torch.float64)
        magnitudes = torch.cat((steps.new_zeros(still), self.min_freq * (self.max_freq / self.min_freq) ** steps))
        directions = spread_directions(self.num_heads * pairs, axes, self.spread).unflatten(0, (self.num_heads, pairs))
        return (directions * magnitudes[:, None]).permute(2, 0, 1).to(device, torch.float32)  # x first

    def slowest_pairs(self, freqs: Tensor, share: float) -> Tensor:
        pairs = freqs.shape[-1]
        return torch.arange(pairs, device=freqs.device) < round(share * pairs)

    def extremes(self, freqs: Tensor) -> tuple[Tensor, Tensor]:
        # Of the magnitudes: along an axis a frequency may come as near to zero as its direction has it.
        fastest = freqs.new_full((len(freqs), 1, 1), self.max_freq)
        return fastest, torch.full_like(fastest, self.min_freq)

    def _lengths(self, size: tuple[int, ...]) -> list[Any]:
        """Tokens over which half of a square image lies along each axis, times two."""
        mean = 1.0
        for n in size:
            mean = mean * n ** (1 / len(size))
        return [larger(n - 1, 1) * mean / n for n in size]

    def places(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        trained, now = self._lengths(self.grid_size), self._lengths(grid.size)
        units = [effective_length(m, n, self._rescaling) for m, n in zip(trained, now)]
        places = zip(self._axes(grid, device, dtype), grid.size, units)
        return [(2 * p + 1 - n) / unit for p, n, unit in places]

    def units(self, grid: Grid) -> list[float]:
        return [2 / length for length in self._lengths(self.grid_size)]

    def extra_repr(self) -> str:
        return f"freqs={self.min_freq}..{self.max_freq}, spread={self.spread!r}, {super().extra_repr()}"
