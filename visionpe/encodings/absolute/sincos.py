"""Fixed sine-cosine absolute position encoding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from visionpe.base import PositionEncoding
from visionpe.checks import check_flag
from visionpe.grid import Grid
from visionpe.policy.functions import rescale_positions
from visionpe.ranges import check_base
from visionpe.registry import register_encoding


@register_encoding("sincos")
class SinCosEncoding(PositionEncoding):
    """Sines and cosines of the column, then of the row, added to the tokens; no parameters.

    Source: "Attention Is All You Need", section 3.5, in the 2D form of MoCo v3 and MAE: with d = dim / 2 channels an
    axis, frequency i is ``temperature ** (-2 i / d)``; channels are sin x, cos x, sin y, cos y.

    Args:
        temperature: Longest wavelength over 2 pi, in tokens; 1e-6 to 1e12.
        interleaved: The channels of an axis take turns, sin, cos, sin, cos, as in the 2D form of LaPE's code.
        context: See :class:`~visionpe.base.PositionEncoding`. The default policy ``interpolate`` scales coordinates
            to the trained range: unseen coordinates confuse the model badly.

    Raises:
        ValueError: If ``dim`` is no multiple of twice the number of axes.
    """

    source = "Transformer, arXiv 1706.03762; MoCo v3, arXiv 2104.02057"
    irregular = True
    policies = ("interpolate", "extrapolate", "rescale")

    def __init__(self, *, temperature: float = 10000.0, interleaved: bool = False, **context: Any) -> None:
        super().__init__(**context)
        self.temperature = check_base("temperature", temperature)
        self.interleaved = check_flag("interleaved", interleaved)
        if self.dim % (2 * len(self.grid_size)):
            raise ValueError(f"dim={self.dim} is no multiple of {2 * len(self.grid_size)}: a sine and a cosine an axis")

    def _compute(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> Tensor:
        bands = self.dim // (2 * grid.axes)
        freqs = self.temperature ** (-torch.arange(bands, device=device, dtype=dtype) / bands)
        parts = []
        positions = grid.positions(device=device, dtype=dtype).unbind(-1)
        for p, size, trained in list(zip(positions, grid.size, self.grid_size))[::-1]:  # x first
            angles = rescale_positions(p, size, trained, self.main_policy)[..., None] * freqs
            both = angles.sin(), angles.cos()
            parts.append(torch.stack(both, dim=-1).flatten(-2) if self.interleaved else torch.cat(both, dim=-1))
        return torch.cat(parts, dim=-1)  # (N, dim)

    def add(self, x: Tensor, grid: Grid) -> Tensor:
        self.check_axes(grid)
        dtype = torch.promote_types(x.dtype, torch.float32)
        if grid.dense:
            key = (grid.size, self.policy, self.grid_size, x.device, dtype)
            table = self.cache.get(key, lambda: self._compute(grid, x.device, dtype))
        else:
            table = self._compute(grid, x.device, dtype)
        return x + table.to(x.dtype)
