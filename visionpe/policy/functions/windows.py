"""Absolute tables of models with attention in windows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def window_part(table: Tensor, window: Sequence[int]) -> Tensor:
    """What a table says of the places in a window: its mean over the windows.

    Windows start at the top left. Where they do not divide the table, those at the border are parts, which count at
    the places that they have. A window longer than the table is cut to it.

    Args:
        table: ``(*trained, dim)``.
        window: Tokens along each axis.

    Returns:
        ``(*window, dim)``.
    """
    for axis, width in enumerate(window):
        n = table.shape[axis]
        width = min(width, n)
        lines = F.pad(table.movedim(axis, -1), (0, -n % width)).unflatten(-1, (-1, width))  # (..., windows, width)
        counts = -(-(n - torch.arange(width, device=table.device)) // width)
        table = (lines.sum(-2) / counts).movedim(-1, axis)
    return table


def tiled(part: Tensor, size: Sequence[int]) -> Tensor:
    """A window ``(*window, dim)`` repeated over ``size`` tokens from the top left: ``(*size, dim)``."""
    for axis, n in enumerate(size):
        part = part.index_select(axis, torch.arange(n, device=part.device) % part.shape[axis])
    return part
