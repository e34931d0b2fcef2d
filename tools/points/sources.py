"""Clouds that need no file: rooms built by rule and the motorcycle scan."""

from __future__ import annotations

from points.cloud import Cloud
from scaling.errors import InputError


def room(seed: int) -> Cloud:
    """A room built by rule, see :func:`visionpe.detection.clouds.room_scenes.make_room`."""
    from visionpe.detection.clouds.room_scenes import CLASSES, PALETTE, make_room

    try:
        return Cloud(**make_room(seed), classes=CLASSES, palette=PALETTE, name=f"room {seed}")
    except ValueError as error:
        raise InputError(f"--room {seed}: {error}") from None


def motorcycle() -> Cloud:
    """The Middlebury motorcycle, see :mod:`visionpe.detection.clouds.motorcycle`."""
    from visionpe.detection.clouds.motorcycle import load_motorcycle

    try:
        return Cloud(**load_motorcycle(), name="motorcycle")
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise InputError(f"--motorcycle: {error}") from None
