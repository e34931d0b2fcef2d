"""What Point Transformer V3 refuses: strides and curves, and voxels at which no curve passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from visionpe.backbones.shared.voxel_checks import check_voxels
from visionpe.checks import check_counts, shown
from visionpe.sparse import Order, Voxels
from visionpe.sparse.orders import MAX_BITS, ORDERS, ends_of


def check_strides(strides: Any, levels: int) -> tuple[int, ...]:
    """One stride for each level but the first.

    Raises:
        TypeError: If it is no sequence.
        ValueError: If they are fewer or more, or one is out of range.
    """
    if levels == 1 and isinstance(strides, (tuple, list)) and not strides:
        return ()
    return check_counts("strides", strides, levels - 1, 1, 64)


def check_orders(orders: Any) -> tuple[Order, ...]:
    """Curves, or the name of one.

    Raises:
        ValueError: If there is none, or one is unknown.
    """
    given = (orders,) if isinstance(orders, str) else orders
    if not isinstance(given, Sequence) or not given or any(order not in ORDERS for order in given):
        raise ValueError(f"orders={shown(orders)}: allowed: one or more of {', '.join(ORDERS)}")
    return tuple(given)


def voxels_of(x: Any, in_chans: int, signals: Sequence[str]) -> tuple[Voxels, int]:
    """Voxels that a model can take, and their largest coordinate.

    Args:
        x: :class:`~visionpe.sparse.Voxels`, or a tuple ``(features, coords)`` or ``(features, coords, signals)``.
            Without signals a voxel stands in the middle of its cell.
        in_chans, signals: See :func:`~visionpe.backbones.shared.voxel_checks.check_voxels`.

    Raises:
        ValueError: As there, or if a coordinate is negative or too large for the curves.
    """
    if isinstance(x, (tuple, list)) and len(x) == 2 and all(isinstance(t, Tensor) and t.ndim == 2 for t in x):
        x = (*x, x[1][:, 1:].float() + 0.5)
    voxels = check_voxels(x, in_chans, signals)
    low, high = ends_of(voxels.coords[:, 1:])
    if low < 0 or high >= 2**MAX_BITS:
        raise ValueError(
            f"coords reach from {low} to {high}; allowed: 0 to {2**MAX_BITS - 1}, as grid sampling gives them: take "
            "off the least of each cloud"
        )
    return voxels, high
