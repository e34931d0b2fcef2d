"""Mixed 2D rotary position embedding, with learned frequencies."""

from __future__ import annotations

from math import pi
from typing import Any

import torch
from torch import Tensor, nn

from visionpe.encodings.rotary.base import RotaryEncoding
from visionpe.grid import Grid
from visionpe.memo import LayerMemo
from visionpe.ranges import check_base
from visionpe.registry import register_encoding
from visionpe.tracing import is_tracing

# Of the tables of all layers, float32.
TOGETHER_BYTES = 8 * 2**20


@register_encoding("rope_mixed", short="rope")  # of two rotary forms the paper's best has the plain name
class MixedRoPE(RotaryEncoding):
    """Every channel pair turns with all coordinates at once, at frequencies learned per layer and head.

    Source: "Rotary Position Embedding for Vision Transformer", eq. 8 to 10. At first each head looks along a random
    direction and those at right angles to it, with the frequencies of the axial form.

    ``freqs`` is ``(axes, depth, heads, head_dim / 2)``, axes fastest first (x, y, time). The table of a layer is
    built when the layer runs: tables of all layers at once would take 3 GiB for ViT-L at 2048 pixels. Where they are
    small, and no gradient is recorded, the first layer builds those of all.

    Args:
        theta: Base of the initial frequencies.
        context: See :class:`~visionpe.encodings.rotary.base.RotaryEncoding`.

    Raises:
        ValueError: If the head dimension is no multiple of 4.
    """

    source = "RoPE-ViT, arXiv 2403.13298"
    irregular = True
    stacked = (("freqs", 1),)
    fixed = False

    def __init__(self, *, theta: float = 10.0, **context: Any) -> None:
        super().__init__(**context)
        self.theta, self.memo = check_base("theta", theta), LayerMemo()
        shape = (len(self.grid_size), self.depth, self.num_heads, self.head_dim // 2)
        self.freqs = nn.Parameter(torch.empty(shape, **self.factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        axes, depth, heads, pairs = self.freqs.shape
        bands = pairs // axes
        # On the CPU whatever the device, so that a seed gives the same model everywhere.
        magnitudes = self.theta ** (-torch.arange(bands, dtype=torch.float32) / bands)
        if axes == 2:
            turn = 2 * pi * torch.rand(depth, heads)
            directions = torch.stack([torch.stack((a.cos(), a.sin()), -1) for a in (turn, turn + pi / 2)], dim=-2)
        else:
            directions = torch.linalg.qr(torch.randn(depth, heads, axes, axes)).Q
        freqs = torch.zeros(depth, heads, axes, pairs)  # directions: (depth, heads, which, axes)
        for which in range(axes):
            band = slice(which * bands, (which + 1) * bands)
            freqs[..., band] = directions[..., which, :, None] * magnitudes
        with torch.no_grad():
            self.freqs.copy_(freqs.permute(2, 0, 1, 3))

    def frequencies(self, layer: int, device: torch.device) -> Tensor:
        return self.freqs[:, layer]

    def extremes(self, freqs: Tensor) -> tuple[Tensor, Tensor]:
        # Of the base: a learned frequency may come as near to zero along an axis as it likes.
        bands = freqs.shape[-1] // len(freqs)
        fastest = freqs.new_ones(len(freqs), 1, 1)
        return fastest, fastest * self.theta ** -((bands - 1) / bands)

    def rotation(self, grid: Grid, *, layer: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        tables = self.memo.get(grid, layer, (device, dtype))
        if tables is None and layer == 0 and self._together(grid):
            freqs = self.freqs.to(torch.promote_types(dtype, torch.float32))
            tables = self._rotation_at(freqs.flatten(1, 2), grid).unflatten(0, (self.depth, self.num_heads))
        if tables is None:
            return super().rotation(grid, layer=layer, device=device, dtype=dtype)
        self.memo.put(grid, layer, tables, (device, dtype), last=layer == self.depth - 1)
        return tables[layer]

    def _together(self, grid: Grid) -> bool:
        """True where one call for all layers saves more than it costs to hold their tables."""
        if torch.is_grad_enabled() or is_tracing() or not grid.dense:
            return False
        return 4 * self.depth * self.dim * grid.num_tokens <= TOGETHER_BYTES

    def extra_repr(self) -> str:
        return f"theta={self.theta}, {super().extra_repr()}"
