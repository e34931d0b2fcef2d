"""Tiny S3DIS and ScanNet trees of the released layout."""

import numpy as np
from plyfile import PlyData, PlyElement

ROOMS = ("office_1", "hallway_6")
OBJECTS = ("wall_1", "floor_1", "chair_2", "stairs_1")


def write_s3dis(root, points=30):
    """Six areas of two rooms, ``points`` points an object; beside them files that are not data."""
    rng = np.random.default_rng(0)
    for area in range(1, 7):
        for room in ROOMS:
            folder = root / f"Area_{area}" / room / "Annotations"
            folder.mkdir(parents=True)
            for name in OBJECTS:
                xyz = rng.uniform(-3, 3, (points, 3))
                rgb = rng.integers(0, 256, (points, 3))
                np.savetxt(folder / f"{name}.txt", np.concatenate((xyz, rgb), 1), fmt="%.3f %.3f %.3f %d %d %d")
            (folder / "._wall_1.txt").write_bytes(b"\x00\x05")
            (folder / "Icon\r").write_bytes(b"")
            (folder.parent / f"{room}.txt").write_text("1 2 3 4 5 6\n")
        (root / f"Area_{area}" / f"Area_{area}_alignmentAngle.txt").write_text("## angles\n")
    return root


def _scene(folder, name, labels):
    """A flat square of two faces, seen from above, and a corner of no face."""
    folder.mkdir(parents=True)
    corners = [(0, 0, 0.5), (2, 0, 0.5), (2, 2, 0.5), (0, 2, 0.5), (5, 5, 5)]
    kind = [(axis, "f4") for axis in "xyz"] + [(color, "u1") for color in ("red", "green", "blue", "alpha")]
    vertices = np.array([(*corner, 255, 0, 51, 255) for corner in corners], dtype=kind)
    faces = np.array([([0, 1, 2],), ([0, 2, 3],)], dtype=[("vertex_indices", "i4", (3,))])
    face = PlyElement.describe(faces, "face")
    PlyData([PlyElement.describe(vertices, "vertex"), face]).write(str(folder / f"{name}_vh_clean_2.ply"))
    if labels:
        marked = np.array(
            [(*row.tolist(), label) for row, label in zip(vertices, (1, 2, 39, 13, 0))], dtype=[*kind, ("label", "u2")]
        )
        parts = [PlyElement.describe(marked, "vertex"), face]
        PlyData(parts).write(str(folder / f"{name}_vh_clean_2.labels.ply"))


def write_scannet(root):
    """Two scenes to train, one to validate, one to test."""
    splits = {"train": ["scene0000_00", "scene0000_01"], "val": ["scene0001_00"], "test": ["scene0707_00"]}
    for split, names in splits.items():
        for name in names:
            _scene(root / ("scans_test" if split == "test" else "scans") / name, name, labels=split != "test")
        (root / f"scannetv2_{split}.txt").write_text("\n".join(names) + "\n")
    return root


def _folder(folder, labels, classes, points=40, normals=True):
    """A scene of Pointcept's: what its preprocessing writes, in its dtypes and shapes."""
    rng = np.random.default_rng(len(folder.name))
    folder.mkdir(parents=True)
    np.save(folder / "coord.npy", rng.uniform(-1, 1, (points, 3)).astype(np.float32))
    np.save(folder / "color.npy", rng.integers(0, 256, (points, 3)).astype(np.uint8))
    if normals:
        normal = rng.normal(size=(points, 3))
        np.save(folder / "normal.npy", (normal / np.linalg.norm(normal, axis=1, keepdims=True)).astype(np.float32))
    if labels == "segment.npy":
        np.save(folder / labels, rng.integers(0, classes, (points, 1)).astype(np.int16))
    elif labels:
        np.save(folder / labels, rng.integers(-1, classes, points))
        np.save(folder / "segment200.npy", rng.integers(-1, 200, points))
    np.save(folder / "instance.npy", np.zeros(points, np.int16))
    return folder


def write_pointcept_scannet(root):
    """As :func:`write_scannet`."""
    splits = {"train": ["scene0000_00", "scene0000_01"], "val": ["scene0001_00"], "test": ["scene0707_00"]}
    for split, names in splits.items():
        for name in names:
            _folder(root / split / name, None if split == "test" else "segment20.npy", 20)
    return root


def write_pointcept_s3dis(root, normals=True):
    """As :func:`write_s3dis`."""
    for area in range(1, 7):
        for room in ROOMS:
            _folder(root / f"Area_{area}" / room, "segment.npy", 13, normals=normals)
    return root
