"""Point clouds, checked, and from files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from visionpe.utils.errors import InputError
from visionpe.utils.ply import read_ply

SUFFIXES = (".npz", ".npy", ".ply")
UNKNOWN = 255  # class of points without one
# Colours of classes that bring none: told apart by many who see red and green alike.
WHEEL = (
    *((76, 120, 168), (245, 133, 24), (84, 162, 75), (178, 121, 162), (238, 202, 59), (228, 87, 86), (114, 183, 178)),
    *((157, 117, 93), (255, 157, 166), (103, 103, 160), (189, 171, 84), (131, 188, 182), (214, 165, 201)),
    *((67, 147, 120), (242, 188, 120), (120, 94, 170), (158, 202, 225), (150, 75, 60), (140, 140, 70), (200, 200, 200)),
)


def palette(classes: int) -> list[tuple[int, int, int]]:
    """A colour for each class, the first 20 of them different."""
    return [WHEEL[i % len(WHEEL)] for i in range(classes)]


@dataclass
class Cloud:
    """Points with what is known about them, checked.

    Args:
        points: ``(P, 3)`` in metres, z up.
        colors: ``(P, 3)`` uint8; grey where there are none.
        labels, predictions: Classes ``(P,)``; 255 or below 0 where unknown.
        normals: ``(P, 3)``, of any length.
        features: Colours ``(P, 3)`` uint8 that a model's features were given.
        classes: Names; numbers where there are none.
        palette: A colour for each class.
        name: For titles.

    Raises:
        InputError: If an array has the wrong shape or holds what it cannot; names it.
    """

    points: NDArray
    colors: NDArray | None = None
    labels: NDArray | None = None
    predictions: NDArray | None = None
    normals: NDArray | None = None
    features: NDArray | None = None
    classes: Sequence[str] = ()
    palette: Sequence[tuple[int, int, int]] = ()
    name: str = "points"
    count: int = field(init=False)
    named: bool = field(init=False)  # whether the names were given

    def __post_init__(self) -> None:
        self.points = _rows("points", self.points, 3)
        self.count = len(self.points)
        if not self.count:
            raise InputError("points is empty; at least one point is needed")
        if not np.isfinite(self.points).all():
            bad = int((~np.isfinite(self.points)).any(1).sum())
            raise InputError(f"points holds {bad} rows with NaN or infinity")
        if self.normals is not None:
            self.normals = _rows("normals", self.normals, 3, self.count)
        self.colors = np.full((self.count, 3), 150, np.uint8) if self.colors is None else self._bytes("colors")
        if self.features is not None:
            self.features = self._bytes("features")
        for key in ("labels", "predictions"):
            if getattr(self, key) is not None:
                setattr(self, key, self._classes(key))
        known = [x[x != UNKNOWN] for x in (self.labels, self.predictions) if x is not None]
        highest = max((int(x.max()) for x in known if len(x)), default=-1)
        if self.classes and highest >= len(self.classes):
            raise InputError(f"labels or predictions reach class {highest}, but only {len(self.classes)} are named")
        self.named = bool(self.classes)
        self.classes = list(self.classes) or [f"class {i}" for i in range(highest + 1)]
        if len(self.palette) != len(self.classes):
            self.palette = palette(len(self.classes))

    def _bytes(self, key: str) -> NDArray[np.uint8]:
        value = _rows(key, getattr(self, key), 3, self.count)
        if value.size and not (value.min() >= 0 and value.max() <= 255):
            raise InputError(f"{key} reach {value.min():.4g} to {value.max():.4g}; allowed: 0 to 255")
        if value.dtype.kind == "f" and 0 < value.max() <= 1:
            value = value * 255  # shares rather than bytes
        return value.round().astype(np.uint8)

    def _classes(self, key: str) -> NDArray[np.uint8]:
        value = np.asarray(getattr(self, key))
        if value.shape != (self.count,):
            raise InputError(f"{key} has shape {value.shape}; allowed: one number for each of {self.count} points")
        if value.dtype.kind == "b" or value.dtype.kind not in "iuf" or (value != np.floor(value)).any():
            raise InputError(f"{key} must be whole numbers, got {value.dtype}")
        if value.max() > UNKNOWN:
            raise InputError(f"{key} reach {value.max()}; allowed: up to {UNKNOWN}, which is no class, as is -1")
        return np.where(value < 0, UNKNOWN, value).astype(np.uint8)

    def chosen(self, kept: NDArray) -> Cloud:
        """Some of the points, by number or by yes and no."""
        parts = ("points", "colors", "labels", "predictions", "normals", "features")
        arrays: dict[str, Any] = {key: None if (x := getattr(self, key)) is None else x[kept] for key in parts}
        return Cloud(**arrays, classes=self.classes if self.named else (), palette=self.palette, name=self.name)

    def thinned(self, most: int) -> Cloud:
        """A random ``most`` of the points, always the same, in their order; the cloud itself if it has no more."""
        if self.count <= most:
            return self
        return self.chosen(np.sort(np.random.default_rng(0).permutation(self.count)[:most]))


def _rows(key: str, value: Any, columns: int, rows: int | None = None) -> NDArray:
    value = np.asarray(value)
    if value.ndim != 2 or value.shape[1] != columns or (rows is not None and len(value) != rows):
        wanted = f"({'P' if rows is None else rows}, {columns})"
        raise InputError(f"{key} has shape {value.shape}; allowed: {wanted}")
    if value.dtype.kind not in "iuf":
        raise InputError(f"{key} must be numbers, got {value.dtype}")
    return value


def read_cloud(path: str | Path, classes: Sequence[str] = ()) -> Cloud:
    """Read ``.npz`` (keys points, colors, labels, predictions, normals), ``.npy`` (x y z, r g b, label, prediction) or
    ``.ply`` (x y z, red green blue, nx ny nz, label, prediction); all but points may be missing.

    Args:
        path: The file.
        classes: Names of the classes.

    Raises:
        InputError: If the file cannot be read or used.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: cannot be read; allowed: {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        arrays: dict[str, Any] = {".npz": _npz, ".npy": _npy, ".ply": _ply}[path.suffix.lower()](path)
        return Cloud(**arrays, classes=classes, name=path.stem)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0] if str(error) else 'empty'})") from None


def _npz(path: Path) -> dict[str, NDArray]:
    with np.load(path) as file:
        if "points" not in file:
            raise InputError(f"has no points, only {', '.join(file) or 'nothing'}")
        return {key: file[key] for key in ("points", "colors", "labels", "predictions", "normals") if key in file}


def _npy(path: Path) -> dict[str, NDArray]:
    table = np.load(path)
    if table.ndim != 2 or table.shape[1] not in (3, 6, 7, 8):
        raise InputError(f"has shape {table.shape}; allowed: 3, 6, 7 or 8 columns (x y z, r g b, label, prediction)")
    parts = {"points": table[:, :3], "colors": table[:, 3:6], "labels": table[:, 6:7], "predictions": table[:, 7:8]}
    return {key: x[:, 0] if key in ("labels", "predictions") else x for key, x in parts.items() if x.shape[1]}


def _ply(path: Path) -> dict[str, NDArray]:
    try:
        file = read_ply(path)
    except ModuleNotFoundError:
        raise InputError("needs plyfile: pip install plyfile") from None
    if "vertex" not in file:
        raise InputError("has no vertices")
    vertex = file["vertex"]
    there = {p.name for p in vertex.properties}
    if not {"x", "y", "z"} <= there:
        raise InputError("its vertices have no x, y, z")
    groups = {"points": ("x", "y", "z"), "colors": ("red", "green", "blue"), "normals": ("nx", "ny", "nz")}
    arrays = {key: np.stack([vertex[n] for n in names], 1) for key, names in groups.items() if {*names} <= there}
    singles = {"labels": "label", "predictions": "prediction"}
    return arrays | {key: np.asarray(vertex[name]) for key, name in singles.items() if name in there}
