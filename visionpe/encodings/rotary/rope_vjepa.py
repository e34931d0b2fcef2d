"""The rotary embedding of V-JEPA 2: time, row and column in chunks of channels, as meant and as its weights need it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from visionpe.checks import check_flag
from visionpe.encodings.rotary.base import RotaryEncoding
from visionpe.encodings.rotary.pairs import Layout
from visionpe.encodings.rotary.rope_axial import axial_frequencies
from visionpe.grid import Grid
from visionpe.precision import without_autocast
from visionpe.ranges import check_base
from visionpe.registry import register_encoding


@register_encoding("rope_vjepa")
class VJepaRoPE(RotaryEncoding):
    """A chunk of channels each for time, row and column, in this order; channels that are left over do not turn.

    Source: "V-JEPA 2", arXiv 2506.09985, and its code: with ``bands = head_dim // 6``, pair i of a chunk turns by
    ``theta ** (-i / bands)`` radians a token. No parameters.

    Args:
        theta: Base of the frequencies.
        frames: On two axes the chunk of time stays, and does not turn, as for the one frame that an image is there;
            False gives row and column half of the channels each. On three axes there is always time.
        unequal: As the code computes it, which published weights need: the frequencies of a chunk come twice, one
            after the other, where its pairs are neighbours, so that the two channels of a pair turn by unequal angles.
            That is no rotation, and depends on more than the offset.
        layout: Channel pairs, see :class:`~visionpe.encodings.rotary.base.RotaryEncoding`; neighbours if ``unequal``.
        context: See :class:`~visionpe.encodings.rotary.base.RotaryEncoding`.

    Raises:
        ValueError: If ``unequal`` comes with another layout than ``adjacent``.
    """

    source = "V-JEPA 2, arXiv 2506.09985"
    irregular = True

    def __init__(
        self,
        *,
        theta: float = 10000.0,
        frames: bool = True,
        unequal: bool = False,
        layout: Layout = "adjacent",
        **context: Any,
    ) -> None:
        super().__init__(layout=layout, **context)
        self.theta = check_base("theta", theta)
        self.frames, self.unequal = check_flag("frames", frames), check_flag("unequal", unequal)
        if unequal and layout != "adjacent":
            raise ValueError(f"layout={layout!r} with unequal=True, whose pairs are neighbours; allowed: 'adjacent'")

    @property
    def _chunks(self) -> int:
        axes = len(self.grid_size)
        return 3 if self.frames and axes == 2 else axes

    def frequencies(self, layer: int, device: torch.device) -> Tensor:
        chunks = axial_frequencies(self.theta, self._chunks, self.head_dim // 2, device)
        return chunks.flip(0)[: len(self.grid_size)]  # of column, row, time

    def slowest_pairs(self, freqs: Tensor, share: float) -> Tensor:
        bands = freqs.shape[-1] // self._chunks
        place = torch.arange(freqs.shape[-1], device=freqs.device) % bands
        return place >= bands - round(share * bands)

    def rotate(self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0) -> tuple[Tensor, Tensor]:
        if not self.unequal:
            return super().rotate(q, k, grid, layer=layer)
        with without_autocast(q):
            both = self._rotations(grid, layer=layer, device=q.device, dtype=q.dtype)
            q, k = (self._turned(x, rotation) for x, rotation in zip((q, k), both))
            return q, k

    def _turned(self, x: Tensor, rotation: Tensor) -> Tensor:
        """Channels by the angle of their own place in the chunk, ``rotation`` being that of pairs."""
        turning = self.head_dim // 2 // self._chunks * self._chunks  # pairs
        angles = rotation[..., :turning, :].unflatten(-2, (self._chunks, -1))
        cos, sin = torch.cat((angles, angles), dim=-2).flatten(-3, -2).unbind(-1)  # (..., N, channels that turn)
        wide = x[..., : 2 * turning].to(rotation.dtype)
        a, b = wide.unflatten(-1, (-1, 2)).unbind(-1)
        turned = wide * cos + torch.stack((-b, a), dim=-1).flatten(-2) * sin
        return torch.cat((turned.to(x.dtype), x[..., 2 * turning :]), dim=-1)

    def extra_repr(self) -> str:
        return f"theta={self.theta}, unequal={self.unequal}, {super().extra_repr()}"
