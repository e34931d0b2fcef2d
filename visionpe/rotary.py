"""What every rotary encoding shares: coordinates to angles, and the rotation itself."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from visionpe.base import PositionEncoding
from visionpe.grid import Grid
from visionpe.resize import POSITION_POLICIES, rescale_positions


def rotate_pairs(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn adjacent channel pairs: ``(a, b) -> (a cos - b sin, a sin + b cos)``, in at least float32.

    Args:
        x: ``(B, heads, N, head_dim)``.
        rotation: Cosine and sine, ``(heads or 1, N, head_dim / 2, 2)``, with a leading batch axis if they differ.

    Returns:
        Like ``x``, in the dtype of ``x``.
    """
    pairs = x.to(rotation.dtype).unflatten(-1, (-1, 2))  # (B, heads, N, head_dim / 2, 2)
    if torch.compiler.is_compiling():  # the compiler fuses real arithmetic, but no complex one
        (a, b), (cos, sin) = pairs.unbind(-1), rotation.unbind(-1)
        turned = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1)
    else:  # one pass over memory, several times faster
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(rotation))
    return turned.flatten(-2).to(x.dtype)


def _unit(angles: Tensor) -> tuple[Tensor, Tensor]:
    return angles.cos(), angles.sin()


class RotaryEncoding(PositionEncoding):
    """Base of the rotary encodings: a query at p and a key at r meet at an angle that depends on p - r alone.

    A subclass says at which frequency each channel pair turns along each axis; angles, policies, prefix tokens and
    precision are settled here. Angles and rotation are float32 whatever the dtype of the tokens, because bfloat16
    coordinates are wrong by 0.3 to 0.6 at 32 to 64 tokens a side.

    Raises:
        ValueError: If the head dimension is no multiple of 4.
    """

    policies = POSITION_POLICIES
    # Frequencies without parameters give one table for all layers, which is worth keeping.
    fixed = True

    def __init__(self, **context: Any) -> None:
        super().__init__(**context)
        if self.head_dim % 4:
            raise ValueError(
                f"dim={self.dim} and num_heads={self.num_heads} give head dimension {self.head_dim}; "
                f"{self.name} turns channel pairs on two axes and needs a multiple of 4"
            )

    @abstractmethod
    def frequencies(self, layer: int, device: torch.device) -> Tensor:
        """Radians per token, ``(axes, heads or 1, head_dim / 2)``, axes fastest first: x, y, time."""

    def _compute(self, grid: Grid, layer: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        freqs = self.frequencies(layer, device).to(dtype)  # (axes, heads, pairs)
        if len(freqs) != grid.axes:
            raise ValueError(f"{self.name} was built for {len(freqs)} axes, the tokens stand on {grid.axes}")
        scaled = [
            rescale_positions(p, n, trained, self.policy or "extrapolate")
            for p, n, trained in zip(self._axes(grid, device, dtype), grid.size, self.grid_size)
        ]
        if not grid.dense:
            angles = sum(p[..., None, :, None] * f[:, None] for p, f in zip(scaled, freqs.flip(0)))
            rotation = torch.stack(_unit(torch.as_tensor(angles)), dim=-1)  # ([B,] heads, N, pairs, 2)
        else:
            # cos and sin of a sum of angles, from those of each axis: height + width values instead of their product
            cos, sin = _unit(scaled[0][:, None] * freqs[-1][:, None])  # (heads, n_0, pairs)
            for p, f in zip(scaled[1:], freqs[:-1].flip(0)):
                c, s = (t[:, None] for t in _unit(p[:, None] * f[:, None]))  # (heads, 1, n, pairs)
                cos, sin = cos[:, :, None], sin[:, :, None]
                cos, sin = (t.flatten(1, 2) for t in (cos * c - sin * s, sin * c + cos * s))
            rotation = torch.stack((cos, sin), dim=-1)  # (heads, N, pairs, 2)
        if grid.prefix:  # cosine 1, sine 0: prefix tokens stay as they are, to the last bit
            still = rotation.new_zeros(*rotation.shape[:-3], grid.prefix, *rotation.shape[-2:])
            still[..., 0] = 1
            rotation = torch.cat((still, rotation), dim=-3)
        return rotation

    @staticmethod
    def _axes(grid: Grid, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        if grid.dense:
            return grid.axis_positions(device=device, dtype=dtype)
        return list(grid.positions(device=device, dtype=dtype).unbind(-1))

    def rotation(self, grid: Grid, *, layer: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Cosine and sine for every token, ``(heads or 1, N, head_dim / 2, 2)``, in at least float32."""
        dtype = torch.promote_types(dtype, torch.float32)
        if not (self.fixed and grid.dense):
            return self._compute(grid, layer, device, dtype)
        key = (grid.size, grid.prefix, self.policy, self.grid_size, device, dtype)
        return self.cache.get(key, lambda: self._compute(grid, layer, device, dtype))

    def rotate(self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0) -> tuple[Tensor, Tensor]:
        kind = q.device.type
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):
                return self.rotate(q, k, grid, layer=layer)
        rotation = self.rotation(grid, layer=layer, device=q.device, dtype=q.dtype)
        return rotate_pairs(q, rotation), rotate_pairs(k, rotation)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Move with the model, but keep frequencies in float32 when it is cast to a 16-bit dtype."""

        def move(t: Tensor) -> Tensor:
            moved = fn(t)
            return t.to(moved.device) if moved.dtype in (torch.float16, torch.bfloat16) else moved

        return super()._apply(move, recurse)
