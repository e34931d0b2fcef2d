"""ScanNet v2: indoor scans as meshes, read from the released files (https://arxiv.org/abs/1702.04405)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from mmengine.registry import DATASETS
from numpy.typing import NDArray

from visionpe.detection.clouds.dataset import CloudDataset
from visionpe.utils.errors import InputError, MissingFileError
from visionpe.utils.ply import read_header, read_ply

Split = Literal["train", "val", "test"]

# The classes of the benchmark by their number among the 40 of NYU.
NYU40 = {
    1: "wall", 2: "floor", 3: "cabinet", 4: "bed", 5: "chair", 6: "sofa", 7: "table", 8: "door", 9: "window",
    10: "bookshelf", 11: "picture", 12: "counter", 14: "desk", 16: "curtain", 24: "refrigerator",
    28: "shower curtain", 33: "toilet", 34: "sink", 36: "bathtub", 39: "other furniture",
}  # fmt: skip
CLASSES = tuple(NYU40.values())
PALETTE = [
    [174, 199, 232], [152, 223, 138], [31, 119, 180], [255, 187, 120], [188, 189, 34], [140, 86, 75], [255, 152, 150],
    [214, 39, 40], [197, 176, 213], [148, 103, 189], [196, 156, 148], [23, 190, 207], [247, 182, 210],
    [219, 219, 141], [255, 127, 14], [158, 218, 229], [44, 160, 44], [112, 128, 144], [227, 119, 194], [82, 84, 163],
]  # fmt: skip
IGNORE = -100
MESH, LABELS = "_vh_clean_2.ply", "_vh_clean_2.labels.ply"


def _ply(file: Path) -> Any:
    try:
        return read_ply(file, {"face": {"vertex_indices": 3}})
    except ModuleNotFoundError:
        raise ImportError("ScanNet's meshes are read by plyfile: pip install plyfile") from None
    except InputError as error:
        at = ", " if str(error).startswith("line ") else ": "
        raise InputError(f"{file}{at}{error}") from None


def _columns(mesh: Any, file: Path, names: Sequence[str]) -> NDArray:
    """Properties of the corners, ``(P, len(names))``."""
    there = {p.name for p in mesh["vertex"].properties} if "vertex" in mesh else set()
    lacking = [name for name in names if name not in there]
    if lacking:
        raise InputError(f"{file}: its vertices have no {', '.join(lacking)}; they must have {', '.join(names)}")
    return np.stack([np.asarray(mesh["vertex"][name]) for name in names], 1)


def _refuse_first(bad: Any, file: Path, element: str, what: str, values: NDArray) -> None:
    """Refuse a file for the first of its rows that is bad."""
    if bad.any():
        row = int(bad.argmax())
        raise InputError(f"{file}, {read_header(file).place(element, row)}: {what} ({values[row].tolist()})")


def _faces(mesh: Any, file: Path, corners: int) -> NDArray:
    if "face" not in mesh or "vertex_indices" not in {p.name for p in mesh["face"].properties}:
        raise InputError(f"{file}: has no faces with vertex_indices, of which the normals are made")
    lists = np.asarray(mesh["face"]["vertex_indices"])
    if lists.dtype == object:  # of several lengths
        lengths = np.array([len(each) for each in lists], int)
        _refuse_first(lengths != 3, file, "face", "a face must have three corners, this has others", lengths)
        lists = np.array(lists.tolist(), int).reshape(-1, 3)
    _refuse_first(
        ((lists < 0) | (lists >= corners)).any(1), file, "face", f"a face has corners beyond 0 to {corners - 1}", lists
    )
    return lists


def vertex_normals(points: NDArray[np.floating], faces: NDArray[np.integer]) -> NDArray[np.float32]:
    """Normals of the corners of a mesh: the mean of the faces around each, by the angle that they have there.

    Args:
        points: Corners ``(P, 3)``.
        faces: Triangles ``(F, 3)``, counter-clockwise from outside.

    Returns:
        ``(P, 3)`` of length 1, or 0 where a corner has no face.
    """
    corners = points[faces].astype(np.float64)  # (F, 3, 3)
    ahead = np.roll(corners, -1, axis=1) - corners
    ahead /= np.maximum(np.linalg.norm(ahead, axis=-1, keepdims=True), 1e-12)
    back = -np.roll(ahead, 1, axis=1)
    angles = np.arccos(np.clip((ahead * back).sum(-1), -1, 1))  # (F, 3)
    flat = np.cross(ahead[:, 0], ahead[:, 1])
    flat /= np.maximum(np.linalg.norm(flat, axis=-1, keepdims=True), 1e-12)
    weighted = (angles[..., None] * flat[:, None]).reshape(-1, 3)
    sums = [np.bincount(faces.reshape(-1), weighted[:, axis], minlength=len(points)) for axis in range(3)]
    normals = np.stack(sums, axis=1)
    return (normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def read_mesh(file: Path) -> dict[str, NDArray]:
    """Read the corners of a mesh.

    Args:
        file: A ``*_vh_clean_2.ply``.

    Returns:
        ``points`` ``(P, 3)`` in metres, ``colors`` ``(P, 3)`` in 0..255, ``normals`` ``(P, 3)``.

    Raises:
        InputError: If it is no ply, or holds what cannot be; names the file and the line or the corner.
    """
    mesh = _ply(file)
    points, colors = (_columns(mesh, file, names) for names in (("x", "y", "z"), ("red", "green", "blue")))
    _refuse_first(~np.isfinite(points).all(1), file, "vertex", "x, y and z must be finite", points)
    out = (colors < 0) | (colors > 255)
    _refuse_first(out.any(1), file, "vertex", "red, green and blue must be 0 to 255", colors)
    faces = _faces(mesh, file, len(points))
    return {"points": points, "colors": colors, "normals": vertex_normals(points, faces)}


def read_labels(file: Path) -> NDArray[np.int64]:
    """Read the labels of the corners of a mesh.

    Args:
        file: A ``*_vh_clean_2.labels.ply``, with numbers of NYU40.

    Returns:
        ``(P,)`` in 0..19, -100 where the benchmark has no class.

    Raises:
        InputError: If it is no ply, or a label is no whole number from -1, which is no class, on; names the file and
            the line or the corner.
    """
    given = _columns(_ply(file), file, ("label",))
    wrong = ~((given >= -1) & (given == np.floor(given)))[:, 0]
    _refuse_first(wrong, file, "vertex", "label must be a whole number from 0 on, or -1 for no class", given[:, 0])
    raw = given[:, 0].astype(np.int64)
    table = np.full(max(NYU40) + 2, IGNORE)
    table[list(NYU40)] = np.arange(len(NYU40))
    return table[np.where(raw < 0, 0, np.minimum(raw, max(NYU40) + 1))]  # 0 and beyond the table: no class


@DATASETS.register_module()
class ScanNetDataset(CloudDataset):
    """Scenes of ScanNet v2, the 20 classes of its benchmark, normals of the mesh; see :class:`CloudDataset`.

    Args:
        data_root: With ``scans/<scene>/<scene>_vh_clean_2.ply`` and ``..._vh_clean_2.labels.ply`` (``scans_test`` for
            the test split, which has no labels) and the lists of scenes ``scannetv2_{train,val,test}.txt``.
        split: ``train``, ``val`` or ``test``.
        **kwargs: Further keywords of mmengine's ``BaseDataset``: ``pipeline``, ``indices``, ...

    Raises:
        ValueError: If ``split`` is unknown.
        visionpe.utils.errors.MissingFileError: If a file is missing; names the first.
    """

    METAINFO = {"classes": CLASSES, "palette": PALETTE}  # noqa: RUF012  mmengine's way to state a dataset's classes

    def __init__(self, data_root: str, split: Split = "train", **kwargs: Any) -> None:
        if split not in get_args(Split):
            raise ValueError(f"split={split!r} is unknown; allowed: {', '.join(get_args(Split))}")
        self.split = split
        super().__init__(data_root=str(Path(data_root).expanduser()), **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return a record a scene."""
        root = Path(self.data_root)
        scenes = Path(root, f"scannetv2_{self.split}.txt").read_text().split()
        folder = root / ("scans_test" if self.split == "test" else "scans")
        kinds = (MESH,) if self.split == "test" else (MESH, LABELS)
        for file in (folder / scene / f"{scene}{kind}" for scene in scenes for kind in kinds):
            if not file.exists():
                raise MissingFileError(f"{file} does not exist, but scannetv2_{self.split}.txt names the scene")
        if not scenes:
            raise ValueError(f"{root / f'scannetv2_{self.split}.txt'} names no scene")
        return [{"stem": str(folder / scene / scene), "name": scene} for scene in scenes]

    def read(self, record: dict[str, Any]) -> dict[str, Any]:
        """Read one scene; colours in 0..255."""
        cloud = read_mesh(Path(record["stem"] + MESH))
        if self.split == "test":
            labels: NDArray[np.int64] = np.full(len(cloud["points"]), IGNORE)
        else:
            labels = read_labels(Path(record["stem"] + LABELS))
        if len(labels) != len(cloud["points"]):
            raise ValueError(f"{record['stem']}: {len(labels)} labels for {len(cloud['points'])} corners of the mesh")
        return {**cloud, "labels": labels, "name": record["name"]}
