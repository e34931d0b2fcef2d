"""OpenMMLab's pipelines read pictures and label maps as our other tools do, and name a file that is bad."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import cv2
import mmcv
import mmengine.fileio as fileio
import numpy as np
from mmcv.transforms import LoadImageFromFile
from numpy.typing import NDArray
from PIL import Image

from visionpe.detection.running.quiet import quiet_imports
from visionpe.utils.errors import first_line
from visionpe.utils.pictures import decode_picture, read_bytes, refuse, refuse_special

# OpenCV decodes these to the same bytes as Pillow, in half the time.
PLAIN = {(kind, mode) for kind in ("JPEG", "PNG", "BMP") for mode in ("L", "RGB")}
IGNORE = "_ignore_orientation"
COLOURS = ("color", "grayscale", f"color{IGNORE}", f"grayscale{IGNORE}")
BACKENDS = (None, "cv2", "pillow")  # others are asked for by those who want them as they are


def _is_plain(content: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(content)) as file:
            return (file.format, file.mode) in PLAIN
    except Image.DecompressionBombError:
        return True  # too large for Pillow, not for OpenCV
    except Exception:
        return False


def decode(content: bytes, name: str | Path, color_type: str = "color") -> NDArray[np.uint8]:
    """A picture as OpenMMLab has it, by the rules of :func:`visionpe.utils.pictures.decode_picture`.

    Args:
        content: Of the file.
        name: For messages.
        color_type: ``color`` or ``grayscale``, with ``_ignore_orientation`` to leave the EXIF orientation alone.

    Returns:
        ``(height, width, 3)``, BGR, or ``(height, width)`` where grey.

    Raises:
        visionpe.utils.pictures.PictureError: If it cannot be read.
    """
    upright = not color_type.endswith(IGNORE)
    if color_type.startswith("color") and _is_plain(content):
        flags = cv2.IMREAD_COLOR | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION)
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
        if image is not None:
            return image  # type: ignore[return-value]
    if color_type.startswith("gray"):
        return np.array(decode_picture(content, name, "L", upright=upright))
    colours = np.array(decode_picture(content, name, upright=upright))
    return cv2.cvtColor(colours, cv2.COLOR_RGB2BGR)  # type: ignore[return-value]


def _content(transform: Any, path: str) -> bytes:
    """The bytes of a file, here or where a backend of mmengine finds it."""
    if transform.file_client_args is None and transform.backend_args is None and "://" not in path:
        return read_bytes(path)
    if transform.file_client_args is not None:
        return fileio.FileClient.infer_client(transform.file_client_args, path).get(path)
    return fileio.get(path, backend_args=transform.backend_args)


def _check_size(results: dict[str, Any], image: NDArray, path: str, color_type: str) -> None:
    """Refuse a picture that its EXIF orientation turns away from its annotations."""
    annotated = (results.get("height"), results.get("width"))
    height, width = image.shape[:2]
    if annotated == (width, height) and height != width and not color_type.endswith(IGNORE):
        with Image.open(io.BytesIO(read_bytes(path))) as file:
            turned = file.size == (annotated[1], annotated[0])
        if turned:
            raise refuse(
                path,
                f"is {height} x {width} (height x width) as its EXIF orientation turns it, its annotation is of "
                f"{annotated[0]} x {annotated[1]}; for annotations of the unturned picture give LoadImageFromFile "
                f"color_type='color{IGNORE}'",
            )


def load(self: Any, results: dict[str, Any]) -> dict[str, Any] | None:
    """In place of ``LoadImageFromFile.transform``.

    Raises:
        visionpe.utils.pictures.PictureError: If the picture cannot be read and ``ignore_empty`` is False.
    """
    path = results["img_path"]
    try:
        content = _content(self, path)
        if self.color_type in COLOURS and self.imdecode_backend in BACKENDS:
            image = decode(content, path, self.color_type)
        else:
            image = _foreign(content, path, self.color_type, self.imdecode_backend)
    except Exception:
        if self.ignore_empty:
            return None
        raise
    if "://" not in path:
        _check_size(results, image, path, self.color_type)
    if self.to_float32:
        image = image.astype(np.float32)
    return {**results, "img": image, "img_shape": image.shape[:2], "ori_shape": image.shape[:2]}


def _foreign(content: bytes, path: str, color_type: str, backend: str) -> NDArray:
    """A picture as another backend, or mmcv with another flag, gives it."""
    image = mmcv.imfrombytes(content, flag=color_type, backend=backend)
    if image is None:
        raise refuse(path, f"cannot be read by mmcv with color_type={color_type!r}")
    return image


def _checked(original: Callable[[Any, dict[str, Any]], None], *, bytes_only: bool) -> Callable[[Any, dict], None]:
    """``_load_seg_map`` that names a label map which is bad, and refuses one that is no map of its picture."""

    @wraps(original)
    def load_seg_map(self: Any, results: dict[str, Any]) -> None:
        path = results.get("seg_map_path")
        if path is None:
            original(self, results)
            return
        here = "://" not in path and self.backend_args is None
        if here:
            refuse_special(path)
        if here and bytes_only:
            _refuse_wide(path)
        try:
            original(self, results)
        except AssertionError:  # of the config, not of the file
            raise
        except Exception as error:
            if here:
                read_bytes(path)
            raise refuse(path, f"cannot be read as a label map ({first_line(error, 80)})") from None
        # That of the picture as it was loaded: labels are often loaded behind a Resize.
        labels, shape = results["gt_seg_map"], results.get("ori_shape")
        if shape is not None and labels.shape != tuple(shape[:2]):
            raise refuse(
                path,
                f"has the shape {labels.shape}; allowed: {tuple(shape[:2])}, height and width of its picture "
                f"{str(results.get('img_path'))!r}",
            )

    return load_seg_map


def _refuse_wide(path: str) -> None:
    """Refuse labels that bytes do not hold: mmseg would wrap 256 round to 0."""
    try:
        with Image.open(path) as file:
            wide = file.mode.startswith("I") and np.asarray(file).max(initial=0) > 255
    except Exception:  # the reader says what is wrong
        return
    if wide:
        raise refuse(path, "holds labels above 255; allowed: 0 to 255, of which 255 is no class")


def install() -> None:
    """Let every pipeline that loads a picture from a file take :func:`load`."""
    LoadImageFromFile.transform = load


def install_label_maps(scope: str) -> None:
    """Let the pipelines of a scope check the label maps that they load; imports its transforms, which takes a while.

    Args:
        scope: ``mmdet`` or ``mmseg``; others load none.
    """
    if scope not in ("mmdet", "mmseg"):
        return
    with quiet_imports():  # they print that an optional part is missing
        kind: Any = importlib.import_module(f"{scope}.datasets.transforms").LoadAnnotations
    if not hasattr(kind._load_seg_map, "__wrapped__"):
        kind._load_seg_map = _checked(kind._load_seg_map, bytes_only=scope == "mmseg")
