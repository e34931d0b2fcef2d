"""Spiral RoPE: channel pairs look along several directions of the plane, as published and as its paper has it."""

from __future__ import annotations

from math import cos, pi, sin
from typing import Any, Literal

import torch
from torch import Tensor

from visionpe.checks import check_choice, check_count, check_flag, check_number
from visionpe.encodings.rotary.base import RotaryEncoding
from visionpe.encodings.rotary.tables import rotation_table
from visionpe.grid import Grid
from visionpe.ranges import MAX_DIM, check_base
from visionpe.registry import register_encoding
from visionpe.tracing import larger

Form = Literal["projected", "sampled"]


@register_encoding("rope_spiral")
class SpiralRoPE(RotaryEncoding):
    """Two neighbouring pairs share one of ``directions`` evenly spaced directions, the next two have the next one.

    Source: "Spiral RoPE", arXiv 2602.03227, and its code. Half of the pairs turns with the row, the other half with
    the column, each along axes that are turned by ``0, pi / K, ... (K / 2 - 1) pi / K`` for K directions, in turns.

    Args:
        directions: K, even; 2 is the axial form.
        theta: Base of the frequencies, which fall from ``max_freq`` by ``theta ** (-i / pairs of an axis)``.
        max_freq: The largest, radians a token: 1.5 in the published trainings, 1 as their code has it.
        shared: All directions have the same frequencies, ``theta ** (-i / pairs of a direction)``; else one ladder goes
            through the directions in turns.
        form: ``projected`` as the paper writes it: frequency times ``x cos a + y sin a``, which depends on the offset
            alone. ``sampled`` as its code has it, which published weights need: the map of positions is turned around
            its middle, and what would fall from it keeps the position of the nearest border. There it is not relative,
            and the trained side counts.
        context: See :class:`~visionpe.encodings.rotary.base.RotaryEncoding`. The code resizes by ``interpolate``.
            With ``sampled``, policies that change frequencies see those of the axes.

    Raises:
        ValueError: If the grid has other than two axes, ``directions`` is odd, or the head dimension is no multiple of
            twice as many channels (four times, if ``shared``).
    """

    source = "Spiral RoPE, arXiv 2602.03227"

    def __init__(
        self,
        *,
        directions: int = 4,
        theta: float = 10000.0,
        max_freq: float = 1.0,
        shared: bool = False,
        form: Form = "projected",
        **context: Any,
    ) -> None:
        super().__init__(**context)
        self.check_two_axes()
        check_count("directions", directions, 2, MAX_DIM)
        self.theta, self.max_freq = check_base("theta", theta), check_number("max_freq", max_freq, above=0, high=1e6)
        self.shared = check_flag("shared", shared)
        check_choice("form", form, Form)
        step = 4 * directions if shared else 2 * directions
        if directions % 2 or self.head_dim % step:
            raise ValueError(
                f"directions={directions} with head dimension {self.head_dim}: two pairs each of both axes share a "
                f"direction; allowed: an even number, of which {4 if shared else 2} times divides the head dimension"
            )
        self.directions, self.form = directions, form
        if form == "sampled" and self.augmentation.active:
            raise ValueError(
                "shift_coords, jitter_coords, rescale_coords: with form='sampled' positions are those of a turned map "
                "and do not move; allowed: None"
            )

    def _magnitudes(self, device: torch.device) -> Tensor:
        """Of the pairs of one axis, fastest first, ``(head_dim / 4,)``."""
        pairs = self.head_dim // 4
        count = pairs // (self.directions // 2) if self.shared else pairs
        ladder = self.theta ** (-torch.arange(count, device=device, dtype=torch.float32) / count)
        if self.shared:  # two neighbours for each direction, then the next two
            ladder = ladder.view(-1, 2).repeat_interleave(self.directions // 2, dim=0).flatten()
        return self.max_freq * ladder

    def _turns(self) -> list[int]:
        """By how many steps of ``pi / directions`` the axes of every pair are turned."""
        return [pair // 2 % (self.directions // 2) for pair in range(self.head_dim // 2)]

    def frequencies(self, layer: int, device: torch.device) -> Tensor:
        magnitudes, rows = self._magnitudes(device).repeat(2), self.head_dim // 4
        angles = [turn * pi / self.directions for turn in self._turns()]
        along = [(sin(a), cos(a)) if pair < rows else (cos(a), -sin(a)) for pair, a in enumerate(angles)]
        return torch.tensor(along, device=device).T[:, None] * magnitudes  # (x and y, 1, pairs)

    def extremes(self, freqs: Tensor) -> tuple[Tensor, Tensor]:
        # Of the ladder: along an axis a frequency may come as near to zero as its direction has it.
        ladder = self._magnitudes(freqs.device)
        return ladder.amax().expand(2, 1, 1), ladder.amin().expand(2, 1, 1)

    def _rotation_at(self, freqs: Tensor, grid: Grid) -> Tensor:
        if self.form == "projected":
            return super()._rotation_at(freqs, grid)
        self.check_axes(grid)
        places = self._sampled(grid, freqs.device, freqs.dtype)
        ladder, turns = self._magnitudes(freqs.device), torch.tensor(self._turns(), device=freqs.device)
        straight = freqs.new_zeros(2, 1, 2, len(ladder))  # as if no axis were turned: the first half rows, then columns
        straight[1, 0, 0] = straight[0, 0, 1] = ladder
        straight = self._turning(self._adapted(straight.flatten(2), grid), grid)
        count = self.directions // 2
        freqs = torch.cat([straight[axis] * (turns == turn) for axis in (1, 0) for turn in range(count)])
        listed = Grid(grid.size, grid.prefix, coords=grid.positions(device=freqs.device), known="finite")
        return rotation_table(places, freqs[:, None].flip(0), listed, self.layout)

    def _sampled(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        """The row of every token on each turned map, then its column, as the policy scales them: ``([B,] N)`` each."""
        reach = [larger(n - 1, 1) for n in grid.size]
        y, x = (2 * p / m - 1 for p, m in zip(grid.positions(device=device, dtype=dtype).unbind(-1), reach))
        rows: list[Tensor] = []
        columns: list[Tensor] = []
        for turn in range(self.directions // 2):
            a = turn * pi / self.directions
            turned = (cos(a) * y + sin(a) * x, cos(a) * x - sin(a) * y)
            seen = [(p.clamp(-1, 1) + 1) / 2 * m + self.grid_offset for p, m in zip(turned, reach)]
            for found, place in zip((rows, columns), self.scaled(seen, grid)):
                found.append(place)
        return [*rows, *columns]

    def extra_repr(self) -> str:
        return f"directions={self.directions}, theta={self.theta}, form={self.form!r}, {super().extra_repr()}"
