"""PoPE: content in the size of a channel, position in its angle."""

from __future__ import annotations

from math import pi
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionpe.checks import check_choice
from visionpe.encodings.rotary.base import RotaryEncoding
from visionpe.encodings.rotary.rope_axial import axial_frequencies
from visionpe.grid import Grid
from visionpe.precision import without_autocast
from visionpe.ranges import check_base
from visionpe.registry import register_encoding

PhaseInit = Literal["zeros", "uniform"]


@register_encoding("pope")
class PolarPositionEmbedding(RotaryEncoding):
    """Channel c of a query has the size softplus q_c and turns by its place, a key's by its place and a learned phase.

    Source: "Decoupling the What and Where With Polar Coordinate Positional Embeddings", arXiv 2509.10534, on an axis
    for every share of the channels (the axial form of its open code): the logit is the sum over channels of
    ``softplus(q_c) softplus(k_c) cos((p_k - p_q) w_c + phase_c)``. The first share turns with the column, the last
    with the row, channel i of one with d channels by ``theta ** (-i / d)`` radians a token. ``phase`` is ``(depth,
    heads, head_dim)``, held between -2 pi and 0.

    Queries and keys leave it twice as wide, a cosine and a sine for every channel; the scale of the logits stays that
    of their own width. Prefix tokens have the angle 0, their keys the phase too.

    Args:
        theta: Base of the frequencies.
        phase_init: ``zeros``, or ``uniform`` from -2 pi to 0.
        context: See :class:`~visionpe.encodings.rotary.base.RotaryEncoding`; there are no pairs, so ``layout`` is
            ``adjacent``.

    Raises:
        ValueError: If the head dimension is no multiple of 4, or ``layout`` is given.
    """

    source = "PoPE, arXiv 2509.10534"
    widens = True
    stacked = (("phase", 0),)

    def __init__(self, *, theta: float = 10000.0, phase_init: PhaseInit = "zeros", **context: Any) -> None:
        super().__init__(**context)
        self.theta = check_base("theta", theta)
        check_choice("phase_init", phase_init, PhaseInit)
        if self.layout != "adjacent":
            raise ValueError(f"layout={self.layout!r}: pope has no channel pairs; allowed: 'adjacent'")
        self.phase_init = phase_init
        self.phase = nn.Parameter(torch.empty(self.depth, self.num_heads, self.head_dim, **self.factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.phase_init == "zeros":
            nn.init.zeros_(self.phase)
        else:
            nn.init.uniform_(self.phase, -2 * pi, 0)

    def frequencies(self, layer: int, device: torch.device) -> Tensor:
        """Radians per token of every channel, ``(axes, 1, head_dim)``."""
        return axial_frequencies(self.theta, len(self.grid_size), self.head_dim, device)

    def rotate(self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0) -> tuple[Tensor, Tensor]:
        with without_autocast(q):
            turned_q, turned_k = self._rotations(grid, layer=layer, device=q.device, dtype=q.dtype)
            phase = self.phase[layer].to(turned_k.dtype).clamp(-2 * pi, 0)[:, None]  # (heads, 1, head_dim)
            (cos, sin), (c, s) = turned_k.unbind(-1), (phase.cos(), phase.sin())
            turned_k = torch.stack((cos * c - sin * s, sin * c + cos * s), dim=-1)
            q, k = (_sized(x, turned) for x, turned in ((q, turned_q), (k, turned_k)))
            return q, k

    def extra_repr(self) -> str:
        return f"theta={self.theta}, {super().extra_repr()}"


def _sized(x: Tensor, turned: Tensor) -> Tensor:
    """``(B, heads, N, head_dim)`` and cosines and sines ``(..., N, head_dim, 2)`` to ``(B, heads, N, 2 head_dim)``."""
    return (F.softplus(x.to(turned.dtype))[..., None] * turned).flatten(-2).to(x.dtype)
