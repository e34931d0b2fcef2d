"""Resolutions: ``224``, ``512x384`` (height x width) and factors of the trained size such as ``1.5x``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt

from visionpe.utils.errors import InputError

Size = tuple[int, int]  # height, width in pixels


@dataclass(frozen=True)
class Resolution:
    """One entry of ``--resolutions``: either a size in pixels or a factor of the trained size."""

    text: str
    size: Size | None = None
    factor: float | None = None


def parse_resolution(text: str, flag: str = "--resolutions") -> Resolution:
    """Read one resolution.

    Args:
        text: ``224`` (square), ``512x384`` (height x width, pixels) or ``1.5x`` (of the trained size).
        flag: For the message.

    Returns:
        The parsed entry.

    Raises:
        InputError: If the text is none of these, or not positive.
    """
    if match := re.fullmatch(r"(\d+)(?:x(\d+))?", text):
        height = int(match[1])
        size = (height, int(match[2] or height))
        if min(size) > 0:
            return Resolution(text, size=size)
    elif (match := re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)x", text)) and float(match[1]) > 0:
        return Resolution(text, factor=float(match[1]))
    raise InputError(
        f"{flag} {text}: not a resolution; allowed: pixels (224), HEIGHTxWIDTH (512x384) or a factor of the "
        "trained size (1.5x), each above 0"
    )


def _nearest(value: float, step: int) -> int:
    return max(step, int(value / step + 0.5) * step)


def resolve(resolution: Resolution, trained: Size, patch: Size | None, name: str, flag: str = "--resolutions") -> Size:
    """Turn a resolution into pixels for one model.

    Args:
        resolution: What was asked for. A factor is rounded to the nearest multiple of the patch.
        trained: Height and width at which the model was trained, pixels.
        patch: Height and width of a patch, pixels, or None for a model without patches.
        name: The model, for the message.
        flag: Likewise.

    Returns:
        Height and width, pixels.

    Raises:
        InputError: If a size in pixels is no multiple of the patch.
    """
    step = patch or (1, 1)
    if resolution.factor is not None:
        return _nearest(trained[0] * resolution.factor, step[0]), _nearest(trained[1] * resolution.factor, step[1])
    assert resolution.size is not None
    height, width = resolution.size
    if height % step[0] or width % step[1]:
        below = [max(n // p, 1) * p for n, p in zip((height, width), step)]
        above = [-(-n // p) * p for n, p in zip((height, width), step)]
        nearest = sorted({tuple(below), tuple(above)})
        raise InputError(
            f"{flag} {resolution.text}: {height}x{width} is no multiple of the {step[0]}x{step[1]} patch of "
            f"{name}; nearest allowed: {' or '.join(f'{h}x{w}' for h, w in nearest)}"
        )
    return height, width


def factor_of(size: Size, trained: Size) -> float:
    """How many times the trained size, per side: the square root of the ratio of areas."""
    return sqrt(size[0] * size[1] / (trained[0] * trained[1]))


def resolve_all(resolutions: Sequence[Resolution], trained: Size, patch: Size | None, name: str) -> list[Size]:
    """All resolutions of one model in pixels, each once, smallest area first."""
    sizes = {resolve(resolution, trained, patch, name) for resolution in resolutions}
    return sorted(sizes, key=lambda size: (size[0] * size[1], size))


def parse_factor_limit(text: str) -> tuple[float, int]:
    """Read one ``FACTORx=N``: only N images from that factor of the trained size on.

    Raises:
        InputError: If it has no such form.
    """
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)x=(\d+)", text):
        factor, images = float(match[1]), int(match[2])
        if factor > 0 and images > 0:
            return factor, images
    raise InputError(f"--limit-from {text}: not FACTORx=N (such as 3x=250), both above 0")


def limits_at(factor: float, limits: Iterable[tuple[float, int]]) -> list[int]:
    """The numbers of images that ``--limit-from`` allows at a factor of the trained size."""
    return [images for least, images in limits if factor >= least - 1e-6]
