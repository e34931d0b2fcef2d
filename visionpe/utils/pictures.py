"""Reading pictures: one rule for every kind of file, the same in every tool."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from visionpe.utils.errors import InputError, first_line
from visionpe.utils.files import special

# Formats whose "I" (32-bit integers, to Pillow) is grey of 16 bits.
SIXTEEN_BITS = ("PNG", "PPM")
REFUSED = {
    "F": "holds floating-point pixels, of which no file says what is black and what is white; "
    "allowed: 8 or 16 bits a channel",
    "I": "holds integers of 32 bits or below zero, of which no file says what is black and what is white; "
    "allowed: 8 or 16 bits a channel",
}


class PictureError(InputError):
    """A picture that cannot be read; the message names the file.

    Args:
        message: The whole message.
        reason: The part that does not name the file.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


def refuse(name: str | Path, reason: str) -> PictureError:
    """The error for a picture, ready to be raised."""
    return PictureError(f"image {str(name)!r} {reason}", reason)


def refuse_special(path: str | Path) -> None:
    """Refuse a pipe, a socket or a device: reading it might never end.

    Raises:
        PictureError: Says what it is.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise refuse(path, f"is {special(path)}; allowed: a file")


def read_bytes(path: str | Path) -> bytes:
    """What a file of a picture holds.

    Raises:
        PictureError: If it is missing, a link to nowhere, a folder, a pipe or empty, or must not be read.
    """
    path = Path(path).expanduser()
    refuse_special(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        aim = f"is a link to {os.readlink(path)!r}, which does not exist" if path.is_symlink() else "does not exist"
        raise refuse(path, aim) from None
    except OSError as error:
        raise refuse(path, f"cannot be read ({error.strerror or first_line(error)})") from None
    if not content:
        raise refuse(path, "is empty")
    return content


def _as_bytes(image: Image.Image, name: str | Path) -> Image.Image:
    """A picture of one byte a channel, in the mode L or RGB."""
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format in SIXTEEN_BITS):
        # The upper byte, as Pillow and OpenCV read colours of 16 bits.
        return Image.fromarray((np.asarray(image).astype(np.int32) >> 8).astype(np.uint8))
    if mode in REFUSED:
        raise refuse(name, REFUSED[mode])
    if mode in ("L", "RGB"):
        return image
    image.info.pop("transparency", None)  # what is transparent keeps its colour; Pillow would warn of it
    try:
        return image.convert("L" if mode in ("1", "LA", "La") else "RGB")
    except ValueError:
        raise refuse(name, f"has pixels of the kind {mode!r}; allowed: grey, RGB, palette, CMYK") from None


def decode_picture(
    content: bytes, name: str | Path, mode: Literal["L", "RGB"] = "RGB", *, upright: bool = True
) -> Image.Image:
    """A picture from the bytes of its file.

    16 bits a channel keep the upper 8. Palettes and CMYK become RGB. An alpha channel is left out, and what is
    transparent has the colour that the file gives it. Of several pictures in a file the first is taken.

    Args:
        content: Of the file.
        name: For messages.
        mode: ``RGB``, or ``L`` for grey.
        upright: Turn it as its EXIF orientation says.

    Returns:
        Of one byte a channel.

    Raises:
        PictureError: If it is no picture, cut off, or holds pixels of which nobody knows what is white.
    """
    if not content:
        raise refuse(name, "is empty")
    try:
        with Image.open(io.BytesIO(content)) as file:
            file.load()
            image = ImageOps.exif_transpose(file) if upright else file.copy()
            image.format = file.format
        image = _as_bytes(image, name)
    except (MemoryError, PictureError):
        raise
    except UnidentifiedImageError:
        raise refuse(name, "is no picture, or of a kind that cannot be read; allowed: JPEG, PNG and the like") from None
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error and more for a broken file
        raise refuse(name, f"is cut off or damaged ({first_line(error, 80)})") from None
    return image if image.mode == mode else image.convert(mode)


def open_picture(path: str | Path, mode: Literal["L", "RGB"] = "RGB", *, upright: bool = True) -> Image.Image:
    """A picture from a file; the rules are those of :func:`decode_picture`.

    Args:
        path: The file.
        mode: ``RGB``, or ``L`` for grey.
        upright: Turn it as its EXIF orientation says.

    Raises:
        PictureError: If it cannot be read.
    """
    return decode_picture(read_bytes(path), path, mode, upright=upright)
