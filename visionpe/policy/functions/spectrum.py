"""Tables resized through their spectrum."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi

import torch
from torch import Tensor

from visionpe.policy.functions.matrices import multiply, per_size


@per_size
def fourier_matrix(trained: int, size: int) -> Tensor:
    """From ``trained`` entries to ``size`` of them along an axis, ``(size, trained)``; see :func:`resize_fourier`."""
    waves = torch.arange(min(trained, size), dtype=torch.float64)
    before, after = ((torch.arange(n, dtype=torch.float64) + 0.5) * pi / n for n in (trained, size))
    share = torch.where(waves > 0, 2.0, 1.0) / trained
    return (after[:, None] * waves).cos() * share @ (waves[:, None] * before).cos()


def resize_fourier(table: Tensor, size: Sequence[int]) -> Tensor:
    """Resize in the Fourier domain: the spectrum of a table is cut, or padded with zeros, and read at the new places.

    The table is mirrored at its borders first, which makes a cosine series along each axis (DCT-II, half-sample
    symmetric). Taken as periodic, which a plain Fourier series does, its left border would stand next to its right
    one, and the step between them would ring through the resized table. Waves that fit both sizes keep their
    amplitude, so the mean does too.

    Source: band-limited interpolation by the DCT ("Discrete-Time Signal Processing", Oppenheim and Schafer, section
    8.8 of the third edition).

    Args:
        table: ``(*trained, dim)``.
        size: New tokens along each axis.

    Returns:
        ``(*size, dim)``; the table itself at the trained size.
    """
    sides = [(axis, n) for axis, n in enumerate(size) if table.shape[axis] != n]
    return multiply(table, {axis: fourier_matrix(table.shape[axis], n, like=table) for axis, n in sides})
