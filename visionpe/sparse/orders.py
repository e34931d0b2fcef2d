"""Space-filling curves: where a cell comes on a line through all cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from visionpe.checks import check_choice

Order = Literal["z", "z-trans", "hilbert", "hilbert-trans"]
ORDERS: tuple[str, ...] = get_args(Order)
# Three axes and the number of the cloud share 63 bits.
MAX_BITS = 16


def ends_of(cells: Tensor) -> tuple[int, int]:
    """The least and the largest coordinate; a GPU is waited for, once."""
    low, high = torch.stack(cells.aminmax()).tolist()
    return low, high


def bits_of(largest: int, margin: int = 0) -> int:
    """Bits of the largest coordinate, and of so many beyond it, at most 16."""
    return max(largest.bit_length(), min((largest + margin).bit_length(), MAX_BITS))


def curve_order(cells: Tensor, cloud: Tensor, order: Order, bits: int | None = None) -> Tensor:
    """Rows in the order of a curve, one cloud after the other.

    Source: Point Transformer V3, arXiv 2312.10035, section 4.1. ``z`` interleaves the bits of the coordinates, the
    first axis ahead; ``hilbert`` is J. Skilling's curve ("Programming the Hilbert curve", 2004), whose neighbours on
    the line are neighbours in space; ``-trans`` swaps the first two axes.

    Args:
        cells: ``(N, 3)`` int64, no less than 0.
        cloud: ``(N,)`` int64, in which cloud each stands.
        order: Which curve.
        bits: Of a coordinate, at most 16; the Hilbert curve turns with them. Default: those of the largest one.

    Returns:
        ``(N,)`` int64, rows.

    Raises:
        ValueError: If ``order`` is unknown, or a coordinate is negative or has more bits.
    """
    check_choice("order", order, Order)
    low, high = ends_of(cells)
    bits = bits_of(high) if bits is None else bits
    if bits > MAX_BITS or low < 0 or bits_of(high) > bits:
        allowed = min(bits, MAX_BITS)
        raise ValueError(f"coords reach from {low} to {high} cells; allowed: 0 to {2**allowed - 1} ({allowed} bits)")
    return rows_along(cells, cloud, order, bits)


def rows_along(cells: Tensor, cloud: Tensor, order: Order, bits: int) -> Tensor:
    """:func:`curve_order` of cells that are known to fit: it looks at no number, for which a GPU would have to wait."""
    axes = list(cells.unbind(-1))
    if order.endswith("-trans"):
        axes[0], axes[1] = axes[1], axes[0]
    place = z_code(axes, bits) if order.startswith("z") else hilbert_code(axes, bits)
    return (cloud << 3 * bits | place).argsort()


def z_code(axes: Sequence[Tensor], bits: int) -> Tensor:
    """Bits of the coordinates by turns, the first axis ahead: ``(N,)``."""
    code = torch.zeros_like(axes[0])
    for bit in range(bits):
        for turn, axis in enumerate(reversed(axes)):
            code = code | (axis >> bit & 1) << (len(axes) * bit + turn)
    return code


def hilbert_code(axes: Sequence[Tensor], bits: int) -> Tensor:
    """Where cells come on the Hilbert curve through a cube of ``2 ** bits`` a side: ``(N,)``."""
    axes = list(axes)
    for bit in reversed(range(bits)):  # a cube after the other is turned to where the curve enters it
        below = (1 << bit) - 1
        for i in range(len(axes)):
            within = (axes[i] >> bit & 1).bool()
            flipped = axes[0] ^ below
            swap = (axes[0] ^ axes[i]) & below
            axes[i] = torch.where(within, flipped if i == 0 else axes[i], axes[i] ^ swap)
            if i:
                axes[0] = torch.where(within, flipped, axes[0] ^ swap)
    code = z_code(axes, bits)  # in Gray's code
    shift = 1
    while shift < len(axes) * bits:
        code, shift = code ^ code >> shift, 2 * shift
    return code
