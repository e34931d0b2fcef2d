"""Damaged files of S3DIS and ScanNet: right, or one clear error that names the file and the line."""

import numpy as np
import pytest
from cloud_trees import ROOMS, write_s3dis, write_scannet
from mmengine.registry import DATASETS

from visionpe.detection.clouds import s3dis, scannet
from visionpe.utils.errors import InputError


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"0,5 1 2 3 4 5", r"b'0,5 1 2 3 4 5' must hold six numbers.*decimal point"),
        (b"0,5 1,25 2,0 3 4 5", "decimal point"),
        (b"1 2 3 4x5 6 7", "must hold six numbers"),
        (b"1.2.3 2 3 4 5 6", "must hold six numbers"),
        (b"1 2 3 4 5", "must hold six numbers"),
        (b"nan 2 3 4 5 6", "allowed: finite x y z, and r g b in 0 to 255"),
        (b"1 2 3 four 5 6", "must hold six numbers"),
        (b"1e999 2 3 4 5 6", "allowed: finite x y z, and r g b in 0 to 255"),
        (b"1 2 3 4 5 256", "allowed: finite x y z, and r g b in 0 to 255"),
        (b"1 2 3 -4 5 6", "allowed: finite x y z, and r g b in 0 to 255"),
    ],
)
def test_text_that_means_something_else_is_refused_by_line(tmp_path, line, words):
    file = tmp_path / "chair_1.txt"
    file.write_bytes(b"0 0 0 1 2 3\r\n\r\n" + line + b"\r\n0 0 0 1 2 3\r\n")
    with pytest.raises(InputError, match=rf"chair_1\.txt, line 3: .*{words}"):
        s3dis.read_points(file)


def test_a_damaged_cache_is_named(tmp_path):
    areas = write_s3dis(tmp_path)
    rooms = DATASETS.build({"type": "S3DISDataset", "data_root": str(areas), "split": "test"})
    file = areas / "cache" / f"Area_5_{sorted(ROOMS)[0]}.npy"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match=rf"{file.name}: cannot be read .*delete it"):
        rooms[0]
    for wrong in (np.zeros(7), np.zeros((5, 3)), np.zeros((5, 7), complex), np.array(["a"])):
        np.save(file, wrong)
        with pytest.raises(InputError, match=rf"{file.name}: cannot be read .*7 numbers a point.*delete it"):
            rooms[0]


HEAD = """ply
format ascii 1.0
element vertex 3
property float x
property float y
property float z
property uchar red
property uchar green
property uchar blue
property {kind} label
element face 1
property list uchar int vertex_indices
end_header
"""
CORNERS = ["0 0 0 255 0 0 1", "1 0 0 255 0 0 2", "0 1 0 255 0 0 3"]


def ply(path, rows, kind="ushort", head=HEAD):
    path.write_text(head.format(kind=kind) + "\n".join(rows) + "\n")
    return path


def both(file):
    scannet.read_mesh(file)
    scannet.read_labels(file)


def test_text_meshes_are_read(tmp_path):
    for kind in ("ushort", "int", "float"):
        file = ply(tmp_path / "a.ply", [*CORNERS[:2], "0 1 0 255 0 0 0", "3 0 1 2"], kind)
        assert scannet.read_labels(file).tolist() == [0, 1, -100]
        mesh = scannet.read_mesh(file)
        assert mesh["points"].tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
        assert mesh["normals"].tolist() == [[0, 0, 1]] * 3
    assert scannet.read_labels(ply(tmp_path / "a.ply", [*CORNERS[:2], "0 1 0 0 0 0 -1", "3 0 1 2"], "int"))[2] == -100


@pytest.mark.parametrize("kind", ["int", "ushort", "short"])
def test_labels_below_zero_are_refused_by_line(tmp_path, kind):
    file = ply(tmp_path / "a.ply", [*CORNERS[:2], "-5 1 0 255 0 0 -5", "3 0 1 2"], kind)
    with pytest.raises(InputError, match=r"a\.ply, line 16: label .*-5"):
        scannet.read_labels(file)


@pytest.mark.parametrize(
    ("rows", "kind", "words"),
    [
        ([CORNERS[0], "1,5 0 0 255 0 0 2", CORNERS[2], "3 0 1 2"], "int", "line 15: malformed input .*, x"),
        ([*CORNERS[:2], "0 1 0 255 0 0 2.5", "3 0 1 2"], "float", "line 16: label must be a whole number"),
        ([*CORNERS[:2], "0 1 0 255 0 0 nan", "3 0 1 2"], "float", "line 16: label must be a whole number"),
        ([*CORNERS[:2], "0 1 0 300 0 0 1", "3 0 1 2"], "int", "line 16: red is 300; allowed for uchar: 0 to 255"),
        ([*CORNERS[:2], "0 nan 0 255 0 0 1", "3 0 1 2"], "int", "line 16: x, y and z must be finite"),
        ([*CORNERS, "3 0 1 7"], "int", "line 17: a face has corners beyond 0 to 2"),
        ([*CORNERS, "4 0 1 2 2"], "int", "line 17: a face must have three corners"),
        (CORNERS, "int", "cut off at face 0"),
        (CORNERS[:2], "int", "cut off at vertex 2"),
    ],
)
def test_bad_meshes_are_refused_by_line(tmp_path, rows, kind, words):
    file = ply(tmp_path / "a.ply", rows, kind)
    with pytest.raises(InputError, match=rf"a\.ply(, |: is ){words}"):
        both(file)


def test_meshes_that_are_none(tmp_path):
    cases = {
        "": "is empty",
        "hello": "is no ply",
        HEAD.replace("red", "rot").format(kind="int") + "\n".join([*CORNERS, "3 0 1 2"]): "have no red",
        HEAD.replace(" label", " class").format(kind="int") + "\n".join([*CORNERS, "3 0 1 2"]): "have no label",
        HEAD.replace("comment", "").replace("ply\n", "ply\ncomment é\n", 1).format(kind="int"): "not ASCII",
    }
    for text, words in cases.items():
        (tmp_path / "a.ply").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=rf"a\.ply: .*{words}"):
            both(tmp_path / "a.ply")


def test_binary_meshes_are_refused_by_corner(tmp_path):
    file = write_scannet(tmp_path) / "scans/scene0000_00/scene0000_00_vh_clean_2.ply"
    content = file.read_bytes()
    file.write_bytes(content[:-30])
    with pytest.raises(InputError, match=r"vh_clean_2\.ply: is cut off at vertex 4"):
        scannet.read_mesh(file)
    at = content.index(b"end_header\n") + len(b"end_header\n") + 16  # x of the second corner
    file.write_bytes(content[:at] + np.float32(np.nan).tobytes() + content[at + 4 :])
    with pytest.raises(InputError, match=r"vh_clean_2\.ply, vertex 1: x, y and z must be finite"):
        scannet.read_mesh(file)
