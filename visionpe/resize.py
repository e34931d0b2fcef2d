"""Resolution policies: what becomes of a table or of coordinates at a size that was not trained.

All are pure functions, the identity at the trained size, and work on each axis by its own ratio.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    """Resize feature maps ``(B, C, H, W)`` to ``size``, computed in at least float32.

    Args:
        x: The maps.
        size: New height and width.
        policy: One of ``TABLE_POLICIES``. Corners are not aligned; ``bicubic`` is the resize of DeiT and RoPE-ViT,
            ``bicubic_antialias`` that of timm (the two differ when enlarging too: their cubic kernels do).

    Raises:
        ValueError: If ``policy`` is unknown.
    """
    _check(policy, tuple(TABLE_POLICIES))
    mode, antialias = TABLE_POLICIES[policy]
    wide = torch.promote_types(x.dtype, torch.float32)  # bfloat16 has 8 bits for a weighted sum of 16 entries
    return F.interpolate(x.to(wide), size=tuple(size), mode=mode, antialias=antialias).to(x.dtype)


def resize_table(table: Tensor, size: Sequence[int], policy: str = "bicubic_antialias") -> Tensor:
    """Resize a table of absolute positions.

    Args:
        table: ``(H, W, dim)``.
        size: New height and width.
        policy: One of ``TABLE_POLICIES``.

    Returns:
        ``(height, width, dim)``.

    Raises:
        ValueError: If ``policy`` is unknown.
    """
    _check(policy, tuple(TABLE_POLICIES))
    # The graph of an export serves every size, so it must not branch on one.
    if not torch.compiler.is_exporting() and tuple(table.shape[:2]) == tuple(size):
        return table
    return resize_map(table.permute(2, 0, 1)[None], size, policy)[0].permute(1, 2, 0)


def sample_table(table: Tensor, places: Tensor) -> Tensor:
    """Read a table of absolute positions at fractional places, linearly between its entries.

    Args:
        table: ``(H, W, dim)``.
        places: Row and column, ``(..., 2)``, in entries; beyond the border they count as on it. At whole places the
            result is the entry, to the last bit.

    Returns:
        ``(..., dim)``, in the wider of both dtypes.
    """
    height, width = table.shape[:2]
    flat = table.to(torch.promote_types(table.dtype, places.dtype)).flatten(0, 1)  # (H * W, dim)
    rows, columns = (p.clamp(0, n - 1) for p, n in zip(places.unbind(-1), (height, width)))
    top, left = rows.floor(), columns.floor()
    total = torch.zeros((), device=flat.device, dtype=flat.dtype)
    for row, by_row in ((top, 1 - (rows - top)), (top + 1, rows - top)):
        for column, by_column in ((left, 1 - (columns - left)), (left + 1, columns - left)):
            entry = flat[row.long().clamp(max=height - 1) * width + column.long().clamp(max=width - 1)]
            total = total + entry * (by_row * by_column)[..., None]
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
