"""Resolution policies: what becomes of a table or of coordinates at a size that was not trained.

All are pure functions, the identity at the trained size, and work on each axis by its own ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

# name: (mode of torch.nn.functional.interpolate, antialias)
TABLE_POLICIES = {
    "bicubic_antialias": ("bicubic", True),
    "bicubic": ("bicubic", False),
    "bilinear_antialias": ("bilinear", True),
    "bilinear": ("bilinear", False),
    "nearest": ("nearest-exact", False),
}
POSITION_POLICIES = ("extrapolate", "interpolate")


def _check(policy: str, allowed: Sequence[str]) -> None:
    if policy not in allowed:
        raise ValueError(f"policy={policy!r} is unknown; allowed: {', '.join(allowed)}")


def resize_map(x: Tensor, size: Sequence[int], policy: str = "bicubic_antialias") -> Tensor:
    """Resize feature maps ``(B, C, H, W)`` or volumes ``(B, C, T, H, W)`` to ``size``, in at least float32.

    Args:
        x: The maps. Volumes are resized along one axis after the other, which for all these policies is the same.
        size: New tokens along each axis.
        policy: One of ``TABLE_POLICIES``. Corners are not aligned; ``bicubic`` is the resize of DeiT and RoPE-ViT,
            ``bicubic_antialias`` that of timm (the two differ when enlarging too: their cubic kernels do).

    Raises:
        ValueError: If ``policy`` is unknown.
    """
    _check(policy, tuple(TABLE_POLICIES))
    mode, antialias = TABLE_POLICIES[policy]
    wide = torch.promote_types(x.dtype, torch.float32)  # bfloat16 has 8 bits for a weighted sum of 16 entries
    if x.ndim == 4:
        return F.interpolate(x.to(wide), size=tuple(size), mode=mode, antialias=antialias).to(x.dtype)
    y = x.to(wide)
    for axis, n in enumerate(size, start=2):
        lines = y.movedim(axis, 2).flatten(3)  # (B, C, n, others)
        lines = F.interpolate(lines, size=(n, lines.shape[3]), mode=mode, antialias=antialias)
        y = lines.unflatten(3, [m for a, m in enumerate(y.shape[2:], start=2) if a != axis]).movedim(2, axis)
    return y.to(x.dtype)


def resize_table(table: Tensor, size: Sequence[int], policy: str = "bicubic_antialias") -> Tensor:
    """Resize a table of absolute positions.

    Args:
        table: ``(H, W, dim)`` or ``(T, H, W, dim)``.
        size: New tokens along each axis.
        policy: One of ``TABLE_POLICIES``.

    Returns:
        ``(*size, dim)``.

    Raises:
        ValueError: If ``policy`` is unknown.
    """
    _check(policy, tuple(TABLE_POLICIES))
    # The graph of an export serves every size, so it must not branch on one.
    if not torch.compiler.is_exporting() and tuple(table.shape[:-1]) == tuple(size):
        return table
    return resize_map(table.movedim(-1, 0)[None], size, policy)[0].movedim(0, -1)


def sample_table(table: Tensor, places: Tensor) -> Tensor:
    """Read a table of absolute positions at fractional places, linearly between its entries.

    Args:
        table: ``(*size, dim)``, any number of axes.
        places: ``(..., axes)``, in entries; beyond the border they count as on it. At whole places the result is the
            entry, to the last bit.

    Returns:
        ``(..., dim)``, in the wider of both dtypes.
    """
    size = table.shape[:-1]
    flat = table.to(torch.promote_types(table.dtype, places.dtype)).flatten(0, -2)  # (entries, dim)
    inside = [p.clamp(0, n - 1) for p, n in zip(places.unbind(-1), size)]
    total = torch.zeros((), device=flat.device, dtype=flat.dtype)
    for corner in product((0, 1), repeat=len(size)):
        index, share = torch.zeros((), device=flat.device, dtype=torch.long), torch.ones_like(inside[0])
        for p, n, upper in zip(inside, size, corner):
            low = p.floor()
            index = index * n + (low.long() + upper).clamp(max=n - 1)
            share = share * (p - low if upper else 1 - (p - low))
        total = total + flat[index] * share[..., None]
    return total


def rescale_positions(positions: Tensor, size: int, trained: int, policy: str = "extrapolate") -> Tensor:
    """Coordinates along one axis of ``size`` tokens for a model trained on ``trained``.

    Args:
        positions: Coordinates in token units, any shape.
        size: Tokens along the axis now.
        trained: Tokens along the axis in training.
        policy: ``extrapolate`` keeps the coordinates, so that unseen ones appear; ``interpolate`` scales them into
            the trained range ("Extending Context Window of Large Language Models via Positional Interpolation",
            eq. 4, here on each axis).

    Raises:
        ValueError: If ``policy`` is unknown.
    """
    _check(policy, POSITION_POLICIES)
    return positions if policy == "extrapolate" else positions * trained / size
