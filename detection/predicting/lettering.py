"""Text on pictures: labels that stand beside each other, and a legend below."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]

PAD = 3  # pixels around letters
NARROWEST = 320  # pixels of a strip of text, however narrow the picture


@cache
def font(size: int) -> Any:
    """Letters of most alphabets, which matplotlib brings."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")), size)


def letter_size(picture: Picture) -> int:
    """Pixels of letters that are read when the whole picture is looked at."""
    return min(max(13, round(max(picture.shape[:2]) / 64)), 48)


def _extent(text: str, size: int) -> tuple[int, int]:
    """Width and height of a label, with what is around the letters."""
    return round(font(size).getlength(text)) + 2 * PAD, size + 2 * PAD


def _shortened(text: str, size: int, width: float) -> str:
    """Text that is no wider, cut where it is."""
    if font(size).getlength(text) <= width:
        return text
    while text and font(size).getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def contrast(colour: Colour) -> Colour:
    """Black or white, whichever is read on a colour."""
    return (0, 0, 0) if np.dot(colour, (0.299, 0.587, 0.114)) > 140 else (255, 255, 255)


def _overlap(a: Box, b: Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)


def place(box: Box, extent: tuple[int, int], shape: tuple[int, int], taken: Sequence[Box]) -> Box:
    """Where the label of a box stands: in it if half of it stays free, else beside it, clear of others if it can be.

    Args:
        box: Left, top, right, bottom.
        extent: Width and height of the label.
        shape: Height and width of the picture.
        taken: Where other labels stand.
    """
    (left, top, right, bottom), (width, height) = box, extent
    corners = [(left, top - height), (left, bottom), (right, top), (left - width, top), (right - width, top - height)]
    corners += [(right - width, bottom), (right, bottom - height), (left - width, bottom - height)]
    if width <= right - left and 2 * height <= bottom - top:
        corners.insert(0, (left, top))
    best, cost = (0.0, 0.0), float("inf")
    for x, y in corners:
        inside = (min(max(x, 0), max(shape[1] - width, 0)), min(max(y, 0), max(shape[0] - height, 0)))
        spot = (*inside, inside[0] + width, inside[1] + height)
        moved = abs(inside[0] - x) + abs(inside[1] - y)
        hidden = sum(_overlap(spot, other) for other in taken)
        if hidden + moved * height < cost:
            best, cost = inside, hidden + moved * height
    return (*best, best[0] + width, best[1] + height)


def draw_labels(picture: Picture, boxes: Sequence[Box], texts: Sequence[str], colours: Sequence[Colour]) -> Picture:
    """Write a label at each box, the first ones first.

    Args:
        picture: ``(height, width, 3)``.
        boxes: Left, top, right, bottom, pixels.
        texts, colours: Of each.
    """
    size, taken = letter_size(picture), list[Box]()
    shape = (picture.shape[0], picture.shape[1])
    canvas = Image.fromarray(picture)
    pen = ImageDraw.Draw(canvas)
    for box, text, colour in zip(boxes, texts, colours):
        shown = _shortened(text, size, shape[1] - 2 * PAD)
        spot = place(box, _extent(shown, size), shape, taken)
        taken.append(spot)
        pen.rectangle([spot[0], spot[1], spot[2] - 1, spot[3] - 1], fill=colour)
        middle = (spot[1] + spot[3]) / 2
        pen.text((spot[0] + PAD, middle), shown, contrast(colour), font(size), anchor="lm")
    return np.array(canvas)


def with_legend(picture: Picture, entries: Sequence[tuple[Colour | None, str]], *, lines: bool = False) -> Picture:
    """A picture above a white strip with colours and what they mean.

    Args:
        picture: ``(height, width, 3)``; a narrow one gets white beside it.
        entries: Colour, or None for text alone, and text.
        lines: Each on a line of its own.

    Returns:
        ``(height + strip, width, 3)``.
    """
    if not entries:
        return picture
    size, width = letter_size(picture), max(picture.shape[1], NARROWEST)
    step, gap = size + 2 * PAD, size
    x, y, spots = PAD, PAD, list[tuple[int, int]]()
    shown = [(colour, _shortened(text, size, width - 3 * gap)) for colour, text in entries]
    for colour, text in shown:
        length = round(font(size).getlength(text)) + (size + 2 * PAD if colour else 0)
        if spots and (lines or x + length > width - PAD):
            x, y = PAD, y + step
        spots.append((x, y))
        x += length + gap
    canvas = Image.new("RGB", (width, picture.shape[0] + y + step + PAD), (255, 255, 255))
    canvas.paste(Image.fromarray(picture))
    pen = ImageDraw.Draw(canvas)
    for (colour, text), (x, y) in zip(shown, spots):
        top = picture.shape[0] + y
        if colour:
            pen.rectangle([x, top, x + size, top + size], fill=colour, outline=(0, 0, 0))
            x += size + 2 * PAD
        pen.text((x, top + size / 2), text, (0, 0, 0), font(size), anchor="lm")
    return np.array(canvas)
