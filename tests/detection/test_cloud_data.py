"""Readers of S3DIS, ScanNet and built rooms, on tiny trees of the released layout."""

import numpy as np
import pytest
from cloud_trees import ROOMS, write_s3dis, write_scannet
from mmengine.config import ConfigDict
from mmengine.registry import DATASETS

from visionpe.detection.clouds import s3dis, scannet
from visionpe.detection.running.data_check import check_data


@pytest.fixture
def areas(tmp_path):
    return write_s3dis(tmp_path / "s3dis")


@pytest.fixture
def scenes(tmp_path):
    return write_scannet(tmp_path / "scannet")


def build(kind, root, **kwargs):
    return DATASETS.build({"type": kind, "data_root": str(root), **kwargs})


def test_s3dis_splits_by_area(areas):
    train, test = (build("S3DISDataset", areas, split=split, test_area=2) for split in ("train", "test"))
    assert len(train) == 5 * len(ROOMS)
    assert {train[i]["name"] for i in range(len(train))} == {
        f"Area_{area}_{room}" for area in (1, 3, 4, 5, 6) for room in ROOMS
    }
    assert [test[i]["name"] for i in range(len(test))] == [f"Area_2_{room}" for room in sorted(ROOMS)]


def test_s3dis_reads_points_colours_and_classes(areas):
    cloud = build("S3DISDataset", areas, split="test")[0]
    folder = areas / "Area_5" / sorted(ROOMS)[0] / "Annotations"
    wall = np.loadtxt(folder / "wall_1.txt")
    mine = cloud["labels"] == s3dis.CLASSES.index("wall")
    np.testing.assert_allclose(cloud["points"][mine], wall[:, :3], atol=1e-6)
    np.testing.assert_allclose(cloud["colors"][mine], wall[:, 3:] / 127.5 - 1, atol=1e-6)
    assert cloud["colors"].dtype == cloud["points"].dtype == np.float32
    # What has no class of its own is clutter, the last.
    assert (cloud["labels"] == 12).sum() == len(np.loadtxt(folder / "stairs_1.txt"))


def test_s3dis_is_read_once(areas, monkeypatch):
    first = build("S3DISDataset", areas, split="test")[0]
    files = sorted(path.name for path in (areas / "cache").iterdir())
    assert files == [f"Area_5_{room}.npy" for room in sorted(ROOMS)]
    monkeypatch.setattr(s3dis, "read_room", None)
    again = build("S3DISDataset", areas, split="test")[0]
    np.testing.assert_array_equal(first["points"], again["points"])


def test_s3dis_leaves_no_half_file(areas):
    (areas / "Area_5/office_1/Annotations/wall_1.txt").write_text("1 2 3 4 5\n")
    with pytest.raises(ValueError, match=r"wall_1\.txt has 5 columns; it must have six"):
        build("S3DISDataset", areas, split="test")
    assert not [path for path in (areas / "cache").iterdir() if "office_1" in path.name]


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        (b"1.5 2.0 3.0 103.0\x100000 7 8", [1.5, 2, 3, 103, 7, 8]),
        (b"1.5 2.0 3.0 185\x10187 8", [1.5, 2, 3, 185, 187, 8]),
        (b"1.5 2.0 3.0 18\x005 187 8\r", [1.5, 2, 3, 185, 187, 8]),
    ],
)
def test_stray_bytes_are_mended(tmp_path, line, meant):
    file = tmp_path / "ceiling_1.txt"
    file.write_bytes(b"0 0 0 1 2 3\n" + line + b"\n-1 1e-1 0 1 2 3\n")
    np.testing.assert_allclose(s3dis.read_points(file), [[0, 0, 0, 1, 2, 3], meant, [-1, 0.1, 0, 1, 2, 3]])


@pytest.mark.parametrize("line", [b"1 2 3 nonsense 5 6", b"1 2 3\x10 4 5", b"1 2 3 4-5 6 7"])
def test_damage_beyond_repair_is_named(tmp_path, line):
    file = tmp_path / "ceiling_1.txt"
    file.write_bytes(b"0 0 0 1 2 3\n" + line + b"\n")
    with pytest.raises(ValueError, match=r"ceiling_1\.txt"):
        s3dis.read_points(file)


def test_scannet_classes_and_normals(scenes):
    dataset = build("ScanNetDataset", scenes, split="train")
    assert len(dataset) == 2
    assert len(dataset.metainfo["classes"]) == len(dataset.metainfo["palette"]) == 20
    cloud = dataset[0]
    # NYU40: wall, floor, other furniture, two without a class, and what stands nowhere.
    assert cloud["labels"].tolist() == [0, 1, 19, -100, -100]
    np.testing.assert_allclose(cloud["points"][1], [2, 0, 0.5])
    np.testing.assert_allclose(cloud["colors"][0], np.array([255, 0, 51]) / 127.5 - 1, rtol=1e-6)
    # The square lies flat, the last corner belongs to no face.
    np.testing.assert_allclose(cloud["normals"], [[0, 0, 1]] * 4 + [[0, 0, 0]], atol=1e-6)


def test_scannet_test_split_has_no_labels(scenes):
    cloud = build("ScanNetDataset", scenes, split="test")[0]
    assert (cloud["labels"] == -100).all()


def test_scannet_missing_scene(scenes):
    (scenes / "scannetv2_val.txt").write_text("scene0009_00\n")
    with pytest.raises(FileNotFoundError, match=r"scene0009_00_vh_clean_2\.ply does not exist"):
        build("ScanNetDataset", scenes, split="val")


def test_normals_weigh_faces_by_angle():
    # A corner of a cube, one side cut into two triangles: the three sides still weigh alike.
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1.0]])
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 4], [0, 4, 2]])
    np.testing.assert_allclose(scannet.vertex_normals(points, faces)[0], -np.ones(3) / 3**0.5, atol=1e-6)


def test_normals_turn_with_the_mesh():
    rng = np.random.default_rng(0)
    points, faces = rng.normal(size=(20, 3)), rng.integers(0, 20, (30, 3))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    turned = scannet.vertex_normals(points @ turn.T, faces)
    np.testing.assert_allclose(turned, scannet.vertex_normals(points, faces) @ turn.T, atol=1e-5)


def test_rooms_differ_and_repeat():
    options = {"type": "RoomsDataset", "rooms": 2, "room": {"points": 500}}
    train, again, val = (DATASETS.build({**options, "split": split}) for split in ("train", "train", "val"))
    np.testing.assert_array_equal(train[1]["points"], again[1]["points"])
    clouds = [train[0]["points"], train[1]["points"], val[0]["points"], val[1]["points"]]
    assert all(not np.array_equal(a, b) for i, a in enumerate(clouds) for b in clouds[:i])
    assert train[0]["colors"].min() >= -1
    assert train[0]["colors"].max() <= 1
    assert DATASETS.build({**options, "indices": 1})[0]["name"] == "room_0"


@pytest.mark.parametrize(
    ("kind", "kwargs", "message"),
    [
        ("S3DISDataset", {"split": "val"}, "split='val' is unknown; allowed: train, test"),
        ("S3DISDataset", {"test_area": 7}, "test_area=7 is unknown; allowed: 1, 2, 3, 4, 5, 6"),
        ("ScanNetDataset", {"split": "dev"}, "split='dev' is unknown; allowed: train, val, test"),
    ],
)
def test_unknown_splits(tmp_path, kind, kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(kind, tmp_path, **kwargs)


@pytest.mark.parametrize("rooms", [0, 2_000_000])
def test_rooms_out_of_range(rooms):
    with pytest.raises(ValueError, match=r"rooms=.* is out of range; allowed: 1 to 1000000"):
        DATASETS.build({"type": "RoomsDataset", "rooms": rooms})


def test_missing_data_shows_the_tree(areas, scenes):
    def config(**dataset):
        wrapped = {"type": "RepeatDataset", "times": 2, "dataset": dataset}
        return ConfigDict(train_dataloader={"dataset": wrapped})

    check_data(config(type="S3DISDataset", data_root=str(areas), split="train"), ("train",))
    check_data(config(type="ScanNetDataset", data_root=str(scenes), split="train"), ("train",))
    (areas / "Area_3").rename(areas / "elsewhere")
    check_data(config(type="S3DISDataset", data_root=str(areas), split="test"), ("train",))
    with pytest.raises(FileNotFoundError, match=r"Area_3' does not exist; expected[\s\S]*conferenceRoom_1/Annotations"):
        check_data(config(type="S3DISDataset", data_root=str(areas), split="train"), ("train",))
    (scenes / "scannetv2_val.txt").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"(?s)file .*scannetv2_val.txt.*train_dataloader.dataset.dataset.data_r"
    ):
        check_data(config(type="ScanNetDataset", data_root=str(scenes), split="val"), ("train",))


def test_points_far_from_the_origin_are_read_from_their_corner(tmp_path):
    folder = tmp_path / "Area_1" / "room_1" / "Annotations"
    folder.mkdir(parents=True)
    rows = np.column_stack((np.arange(30).reshape(10, 3) / 8, np.full((10, 3), 7)))
    for shift, name in ((0.0, "beam_1.txt"), (5_400_000.0, "beam_2.txt")):
        np.savetxt(folder / name, rows + [shift, shift, 0, 0, 0, 0], fmt="%.4f")
        found = s3dis.read_room(folder.parent)
        (folder / name).unlink()
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found[:, :3] - found[:, :3].min(0), rows[:, :3] - rows[:, :3].min(0))
