"""Clouds that need no file: rooms built by rule and the motorcycle scan."""

from __future__ import annotations

from typing import Any

from visionpe.utils.errors import InputError
from visionpe.viewing.clouds.cloud import Cloud


def room(seed: int) -> Cloud:
    """A room built by rule, see :func:`visionpe.data.rooms.scenes.make_room`."""
    from visionpe.data.rooms.scenes import CLASSES, PALETTE, make_room

    try:
        return Cloud(**make_room(seed), classes=CLASSES, palette=PALETTE, name=f"room {seed}")
    except ValueError as error:
        raise InputError(f"--room {seed}: {error}") from None


def motorcycle() -> Cloud:
    """The Middlebury motorcycle, see :mod:`visionpe.data.motorcycle`."""
    from visionpe.data.motorcycle import load_motorcycle

    try:
        arrays: dict[str, Any] = load_motorcycle()
        return Cloud(**arrays, name="motorcycle")
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise InputError(f"--motorcycle: {error}") from None
