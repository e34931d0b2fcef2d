"""ScanNet v2 and S3DIS as Pointcept's preprocessing writes them: a folder a scene, an array a file.

Source: https://github.com/Pointcept/Pointcept since version 1.5.2, ``pointcept/datasets/preprocessing``. ``coord.npy``
``(P, 3)`` in metres, ``color.npy`` ``(P, 3)`` in 0..255, ``normal.npy`` ``(P, 3)`` where it was asked for, and classes
from -1, none, on, in ``segment20.npy`` ``(P,)`` or ``segment.npy`` ``(P, 1)``; other files are not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar
from zipfile import BadZipFile

import numpy as np
from mmengine.registry import DATASETS
from numpy.typing import NDArray

from visionpe.detection.clouds import s3dis, scannet
from visionpe.detection.clouds.dataset import CloudDataset
from visionpe.utils.errors import InputError, MissingFileError, first_line

ANEW = "write it anew with Pointcept's preprocessing"
# Of dtypes: their letters in numpy, and their name.
FLOATS, WHOLE, NUMBERS = ("f", "floating point"), ("iu", "whole numbers"), ("iuf", "numbers")


def read_array(file: Path, kinds: tuple[str, str], columns: int) -> NDArray:
    """Read a .npy file, of which no code can be run.

    Args:
        file: The file.
        kinds: Of dtypes that are allowed.
        columns: Of ``(P, columns)``; with 1, ``(P,)`` too.

    Returns:
        ``(P, columns)``, or ``(P,)`` for one column.

    Raises:
        MissingFileError: If it is not there.
        InputError: If it cannot be read, is of another shape or dtype, or holds NaN or infinity; names the file.
    """
    try:
        data = np.load(file, allow_pickle=False)
    except FileNotFoundError:
        raise MissingFileError(f"{file} does not exist; {ANEW}") from None
    except (ValueError, EOFError, OSError, MemoryError, BadZipFile) as error:
        raise InputError(f"{file}: cannot be read ({first_line(error, 80)}); {ANEW}") from None
    shape = "(P,)" if columns == 1 else f"(P, {columns})"
    if not isinstance(data, np.ndarray) or data.dtype.kind not in kinds[0]:
        raise InputError(f"{file}: holds {getattr(data, 'dtype', 'several arrays')}; allowed: {kinds[1]} {shape}")
    if columns == 1 and data.ndim == 2 and data.shape[1] == 1:
        data = data[:, 0]
    if data.shape[1:] != (columns,) * (columns > 1) or data.ndim == 0 or not len(data):
        raise InputError(f"{file}: is {data.shape}; allowed: {shape} with at least one point")
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise InputError(f"{file}: holds NaN or infinity; {ANEW}")
    return data


def read_scene(folder: Path, labels: str | None, classes: int, ignore: int) -> dict[str, NDArray]:
    """Read the files of one scene.

    Args:
        folder: Of the scene.
        labels: Name of the file of labels; None where there are none.
        classes: How many.
        ignore: What -1 becomes.

    Returns:
        ``points colors labels``, and ``normals`` where they are.

    Raises:
        MissingFileError, InputError: See :func:`read_array`; also if a file has more points than another, or colours or
            labels beyond their range.
    """
    colors = folder / "color.npy"
    scene = {"points": read_array(folder / "coord.npy", FLOATS, 3), "colors": read_array(colors, NUMBERS, 3)}
    if scene["colors"].min() < 0 or scene["colors"].max() > 255:
        raise InputError(
            f"{colors}: reaches from {scene['colors'].min()} to {scene['colors'].max()}; allowed: 0 to 255"
        )
    if (folder / "normal.npy").exists():
        scene["normals"] = read_array(folder / "normal.npy", FLOATS, 3).astype(np.float32)
    count = len(scene["points"])
    scene["labels"] = np.full(count, -1) if labels is None else read_array(folder / labels, WHOLE, 1).astype(np.int64)
    if scene["labels"].min() < -1 or scene["labels"].max() >= classes:
        low, high = scene["labels"].min(), scene["labels"].max()
        raise InputError(f"{folder / str(labels)}: labels reach from {low} to {high}; allowed: -1 to {classes - 1}")
    for key, name in (("colors", "color.npy"), ("normals", "normal.npy"), ("labels", labels)):
        if key in scene and len(scene[key]) != count:
            raise InputError(f"{folder / str(name)}: has {len(scene[key])} points; coord.npy has {count}")
    scene["labels"][scene["labels"] < 0] = ignore
    return scene


def scenes_of(folder: Path, labels: str | None) -> list[Path]:
    """The folders of the scenes of a split or an area.

    Raises:
        MissingFileError: If there is no scene, or one lacks a file; names it.
        InputError: If scenes are .pth files, as earlier versions of Pointcept wrote them.
    """
    old = sorted(folder.glob("*.pth"))
    if old:
        raise InputError(
            f"{old[0]} is of an earlier layout, whose reading can run code that is in it; preprocess the data with "
            "Pointcept 1.5.2 or later, or download them as it publishes them, as .npy files"
        )
    found = sorted(path for path in folder.glob("*") if path.is_dir() and not path.name.startswith("."))
    if not found:
        raise MissingFileError(f"{folder} has no <scene>/coord.npy")
    for file in (scene / name for scene in found for name in ("coord.npy", "color.npy", labels) if name):
        if not file.exists():
            raise MissingFileError(f"{file} does not exist; {ANEW}")
    return found


class _Scenes(CloudDataset):
    """What both have in common."""

    ignore: ClassVar[int]
    labels: str | None

    def read(self, record: dict[str, Any]) -> dict[str, Any]:
        """Read one scene; colours in 0..255."""
        scene = read_scene(Path(record["folder"]), self.labels, len(self.metainfo["classes"]), self.ignore)
        return {**scene, "name": record["name"]}


@DATASETS.register_module()
class PointceptScanNetDataset(_Scenes, scannet.ScanNetDataset):
    """Scenes of ScanNet v2 in Pointcept's layout, the 20 classes of the benchmark; see :class:`CloudDataset`.

    Normals are those of its preprocessing, where a face weighs by its area. A point without a class has label -100.

    Args:
        data_root: With ``train/<scene>/``, ``val/<scene>/`` and ``test/<scene>/``; the last has no labels.
        split: ``train``, ``val`` or ``test``.
        **kwargs: Further keywords of mmengine's ``BaseDataset``: ``pipeline``, ``indices``, ...

    Raises:
        ValueError: If ``split`` is unknown, or the scenes are in an earlier layout.
        visionpe.utils.errors.MissingFileError: If a file is missing; names the first.
    """

    ignore = scannet.IGNORE

    @property
    def labels(self) -> str | None:  # type: ignore[override]
        return None if self.split == "test" else "segment20.npy"

    def load_data_list(self) -> list[dict]:
        """Return a record a scene."""
        found = scenes_of(Path(self.data_root, self.split), self.labels)
        return [{"folder": str(folder), "name": folder.name} for folder in found]


@DATASETS.register_module()
class PointceptS3DISDataset(_Scenes, s3dis.S3DISDataset):
    """Rooms of S3DIS in Pointcept's layout, 13 classes; see :class:`CloudDataset`.

    There are normals where it was preprocessed with ``--parse_normal``. A point without a class has label 255.

    Args:
        data_root: With ``Area_1/<room>/`` to ``Area_6/<room>/``.
        split: ``train``, the other five areas, or ``test``.
        test_area: Area to test on, 1 to 6.
        **kwargs: Further keywords of mmengine's ``BaseDataset``: ``pipeline``, ``indices``, ...

    Raises:
        ValueError: If ``split`` or ``test_area`` is unknown, or the rooms are in an earlier layout.
        visionpe.utils.errors.MissingFileError: If a file is missing; names the first.
    """

    ignore, labels = 255, "segment.npy"

    def __init__(self, data_root: str, split: s3dis.Split = "train", test_area: int = 5, **kwargs: Any) -> None:
        if "cache" in kwargs:
            raise TypeError("PointceptS3DISDataset takes no cache: its rooms are arrays already")
        super().__init__(data_root, split, test_area, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return a record a room."""
        return [
            {"folder": str(folder), "name": f"Area_{area}_{folder.name}"}
            for area in self.areas
            for folder in scenes_of(Path(self.data_root, f"Area_{area}"), self.labels)
        ]
