"""Pictures of every odd kind, 16 x 16 pixels, and files that are none."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 16
# 0 to 240 from left to right; its red runs down, so that a turn shows.
RAMP = np.tile(np.arange(SIDE, dtype=np.uint8) * 16, (SIDE, 1))
COLOURS = np.stack([RAMP.T, RAMP, 255 - RAMP], -1)
WIDE = RAMP.astype(np.uint16) * 256 + 99  # another lower byte than the upper one
GREY = np.repeat(RAMP[..., None], 3, -1)


def _transparent() -> Image.Image:
    picture = Image.fromarray(COLOURS).convert("RGBA")
    picture.putalpha(Image.fromarray(255 - RAMP))
    return picture


def _palette() -> Image.Image:
    picture = Image.frombytes("P", (SIDE, SIDE), (RAMP // 16).tobytes())
    picture.putpalette([value for i in range(16) for value in (16 * i, 16 * i, 16 * i)])
    return picture


def _sixteen_bits_of_colour() -> bytes:
    import cv2

    return cv2.imencode(".png", COLOURS[..., ::-1].astype(np.uint16) * 256 + 99)[1].tobytes()


def _turned() -> tuple[Image.Image, dict]:
    exif = Image.Exif()
    exif[0x0112] = 6  # the first row stands on the right: turned back by 90 degrees
    return Image.fromarray(np.ascontiguousarray(np.rot90(COLOURS))), {"exif": exif}


def _saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def odd_pictures() -> dict[str, tuple[bytes, np.ndarray, int]]:
    """By file name: the bytes, what they show as ``(16, 16, 3)`` RGB, and the error that their format makes."""
    jpeg = {"quality": 100, "subsampling": 0}
    turned, exif = _turned()
    return {
        "grey16.png": (_saved(Image.fromarray(WIDE), "PNG"), GREY, 0),
        "grey16.tif": (_saved(Image.fromarray(WIDE), "TIFF"), GREY, 0),
        "colour16.png": (_sixteen_bits_of_colour(), COLOURS, 0),
        "turned.jpg": (_saved(turned, "JPEG", **jpeg, **exif), COLOURS, 5),
        "turned.png": (_saved(turned, "PNG", **exif), COLOURS, 0),
        "palette.png": (_saved(_palette(), "PNG", transparency=bytes(range(0, 256, 16))), GREY, 0),
        "one.png": (_saved(_palette(), "PNG", transparency=3), GREY, 0),
        "rgba.png": (_saved(_transparent(), "PNG"), COLOURS, 0),
        "la.png": (_saved(_transparent().getchannel("A").convert("LA"), "PNG"), 255 - GREY, 0),
        "cmyk.jpg": (_saved(Image.fromarray(COLOURS).convert("CMYK"), "JPEG", **jpeg), COLOURS, 5),
        "bits.png": (_saved(Image.fromarray(RAMP).point(lambda v: 255 * (v > 100), "1"), "PNG"), 255 * (GREY > 100), 0),
        "plain.jpg": (_saved(Image.fromarray(COLOURS), "JPEG", **jpeg), COLOURS, 5),
    }


def write_bad(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that are no picture, by kind, and a word of the error that each is."""
    jpeg = _saved(Image.fromarray(COLOURS), "JPEG")
    contents = {
        "float.tif": (_saved(Image.fromarray(RAMP / np.float32(255)), "TIFF"), "floating-point"),
        "int32.tif": (_saved(Image.fromarray(RAMP.astype(np.int32)), "TIFF"), "integers of 32 bits"),
        "empty.png": (b"", "is empty"),
        "cut.jpg": (jpeg[: len(jpeg) - 40], "cut off or damaged"),
        "text.png": (b"<html>404</html>", "is no picture"),
    }
    found = {}
    for name, (content, word) in contents.items():
        (folder / name).write_bytes(content)
        found[name] = (folder / name, word)
    (folder / "link.png").symlink_to("nowhere.png")
    return {**found, "link.png": (folder / "link.png", "is a link to 'nowhere.png', which does not exist")}
