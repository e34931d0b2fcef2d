"""Which blocks of a windowed ViT see the whole map, and how large the windows of the others are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from visionpe.backbones.shared.arguments import MAX_WINDOW
from visionpe.checks import check_counts, check_pair, shown

NUM_GLOBAL = 4


def evenly_spaced_blocks(depth: int) -> tuple[int, ...]:
    """Indices of the global blocks: four evenly spaced, the last block being one, and fewer in a shallow model."""
    count = max(1, min(NUM_GLOBAL, depth // 2))
    return tuple(depth * (i + 1) // count - 1 for i in range(count))


def window_sides(value: int | Sequence[int]) -> tuple[int, int]:
    """Height and width of the windows, tokens; 0 and 0 for none.

    Raises:
        TypeError, ValueError: If they are none.
    """
    first, second = check_pair("window_size", value, 0, MAX_WINDOW)
    if (first == 0) != (second == 0):
        raise ValueError(f"window_size={value!r} is no size; allowed: a positive integer, two, or 0")
    return first, second


def block_indices(name: str, indices: Any, depth: int) -> tuple[int, ...]:
    """Indices of blocks, which may be none.

    Raises:
        TypeError, ValueError: If one is of no block, or given twice.
    """
    try:
        blocks = check_counts(name, indices, None, 0, depth - 1) if indices is None or len(indices) else ()
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}={shown(indices)}: allowed are blocks 0 to {depth - 1}") from None
    if len(set(blocks)) < len(blocks):
        raise ValueError(f"{name}={blocks} names a block twice; allowed: each of 0 to {depth - 1} once")
    return blocks
