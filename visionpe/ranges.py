"""Ranges of options that several parts of the package have, and the largest sizes of anything."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from visionpe.checks import check_count, check_number, shown

# Beyond this many entries a table is a mistake in the sizes, and an allocator would say so less clearly.
LARGEST_TABLE = 2**31
# Of a side of an image.
MAX_PIXELS = 2**16
# What a model may have: channels, blocks, tokens along an axis, and tokens that stand nowhere.
MAX_DIM, MAX_DEPTH, MAX_SIDE = 2**16, 1000, 2**20
MAX_PREFIX = 10000


def check_factory(device: Any, dtype: Any) -> None:
    """Where parameters are and what they are.

    Raises:
        TypeError: If ``dtype`` is no dtype.
        ValueError: If it is not a floating one, or ``device`` is unknown to torch.
    """
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype={shown(dtype)} is no torch.dtype; allowed: torch.float32 and other floating ones")
    if dtype is not None and not dtype.is_floating_point:
        raise ValueError(f"dtype={dtype} has no fractions; allowed: torch.float32 and other floating ones")
    if device is not None:
        try:
            torch.empty(0, device=device)
        except (RuntimeError, TypeError, ValueError, AssertionError) as error:
            why = str(error).partition("\n")[0]
            raise ValueError(f"device={shown(device)}: {why}; allowed: cpu, cuda, ... as far as there are") from None


def check_table(name: str, value: Any, *shape: int) -> tuple[int, ...]:
    """The shape of a table that a size asks for.

    Args:
        name: Of the size, for the message.
        value: What was given.
        shape: Of the table.

    Returns:
        The shape.

    Raises:
        ValueError: If it has more entries than any model has.
    """
    entries = 1
    for n in shape:
        entries *= n
    if entries > LARGEST_TABLE:
        raise ValueError(f"{name}={shown(value)} makes a table of {entries} entries; allowed: up to {LARGEST_TABLE}")
    return shape


def check_base(name: str, value: Any) -> float:
    """The base of a series of frequencies or periods: 1e-6 to 1e12, in which float32 has all of them."""
    return check_number(name, value, 1e-6, 1e12)


def check_width(name: str, value: Any) -> int:
    """Channels of a layer inside an encoding: 1 to 65536."""
    return check_count(name, value, 1, 2**16)


def check_kernel_size(value: Any) -> int:
    """The side of a kernel of convolutions, tokens: odd, 1 to 127."""
    try:
        count = check_count("kernel_size", value, 1, 127)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"kernel_size={shown(value)} is no odd number of that range; allowed: 1, 3, 5, ... 127"
        ) from None
    if count % 2 == 0:
        raise ValueError(f"kernel_size={shown(value)} must be odd; allowed: 1, 3, 5, ... 127")
    return count


def check_init_std(value: Any) -> float:
    """The standard deviation of initial entries, 0 to 100."""
    return check_number("init_std", value, 0, 100)


def draw_table(table: torch.Tensor, std: float) -> None:
    """Normal entries, cut off at 2 on either side, or zeros where ``std`` is 0, by which torch would divide."""
    if std:
        nn.init.trunc_normal_(table, std=std)
    else:
        nn.init.zeros_(table)
