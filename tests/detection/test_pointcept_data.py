"""ScanNet and S3DIS in Pointcept's layout: read as written, or one clear error that names the file."""

import pickle

import numpy as np
import pytest
import torch
from cloud_trees import ROOMS, write_pointcept_s3dis, write_pointcept_scannet
from mmengine.config import ConfigDict
from mmengine.registry import DATASETS

from visionpe.detection.clouds import pointcept, s3dis, scannet
from visionpe.detection.running.data_check import check_data
from visionpe.utils.errors import InputError, MissingFileError


def build(kind, root, **kwargs):
    return DATASETS.build({"type": f"Pointcept{kind}Dataset", "data_root": str(root), **kwargs})


@pytest.fixture
def scenes(tmp_path):
    return write_pointcept_scannet(tmp_path / "scannet")


@pytest.fixture
def areas(tmp_path):
    return write_pointcept_s3dis(tmp_path / "s3dis")


def test_scannet(scenes):
    train = build("ScanNet", scenes)
    assert train.metainfo["classes"] == scannet.CLASSES
    assert [cloud["name"] for cloud in train] == ["scene0000_00", "scene0000_01"]
    cloud, folder = train[1], scenes / "train/scene0000_01"
    np.testing.assert_array_equal(cloud["points"], np.load(folder / "coord.npy"))
    np.testing.assert_array_equal(cloud["normals"], np.load(folder / "normal.npy"))
    np.testing.assert_allclose(cloud["colors"], np.load(folder / "color.npy") / 127.5 - 1, atol=1e-6)
    labels = np.load(folder / "segment20.npy")
    assert (labels == -1).any()
    np.testing.assert_array_equal(cloud["labels"], np.where(labels < 0, -100, labels))
    assert cloud["labels"].dtype == np.int64
    assert all(cloud[key].dtype == np.float32 for key in ("points", "colors", "normals"))
    test = build("ScanNet", scenes, split="test")[0]
    assert (test["labels"] == -100).all()
    assert len(test["labels"]) == len(test["points"])


def test_s3dis(areas, tmp_path):
    train, test = (build("S3DIS", areas, split=split, test_area=2) for split in ("train", "test"))
    assert train.metainfo["classes"] == s3dis.CLASSES
    assert {c["name"] for c in train} == {f"Area_{area}_{room}" for area in (1, 3, 4, 5, 6) for room in ROOMS}
    assert [c["name"] for c in test] == [f"Area_2_{room}" for room in sorted(ROOMS)]
    np.testing.assert_array_equal(test[0]["labels"], np.load(areas / "Area_2" / sorted(ROOMS)[0] / "segment.npy")[:, 0])
    assert not (areas / "cache").exists()
    without = build("S3DIS", write_pointcept_s3dis(tmp_path / "without", normals=False))
    assert "normals" not in without[0]
    with pytest.raises(TypeError, match="takes no cache"):
        build("S3DIS", areas, cache="here")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("coord.npy", np.zeros((40, 4), "f4"), r"is \(40, 4\); allowed: \(P, 3\)"),
        ("coord.npy", np.zeros((0, 3), "f4"), r"is \(0, 3\); allowed: \(P, 3\) with at least one point"),
        ("coord.npy", np.float32(1), r"is \(\); allowed"),
        ("coord.npy", np.zeros((40, 3), int), r"holds int64; allowed: floating point \(P, 3\)"),
        ("coord.npy", np.full((40, 3), np.nan, "f4"), "holds NaN or infinity"),
        ("coord.npy", np.zeros((40, 3), complex), "holds complex128; allowed: floating point"),
        ("color.npy", np.full((40, 3), 256), "reaches from 256 to 256; allowed: 0 to 255"),
        ("color.npy", np.full((40, 3), -1.0), "reaches from -1.0 to -1.0; allowed: 0 to 255"),
        ("color.npy", np.zeros((40, 3), "U1"), "holds <U1; allowed: numbers"),
        ("color.npy", np.zeros((39, 3), "u1"), "has 39 points; coord.npy has 40"),
        ("normal.npy", np.zeros((41, 3), "f4"), "has 41 points; coord.npy has 40"),
        ("normal.npy", np.zeros(40, "f4"), r"is \(40,\); allowed: \(P, 3\)"),
        ("segment20.npy", np.zeros(40), r"holds float64; allowed: whole numbers \(P,\)"),
        ("segment20.npy", np.full(40, 20), "labels reach from 20 to 20; allowed: -1 to 19"),
        ("segment20.npy", np.full(40, -2), "labels reach from -2 to -2; allowed: -1 to 19"),
        ("segment20.npy", np.zeros((40, 2), int), r"is \(40, 2\); allowed: \(P,\)"),
        ("segment20.npy", np.zeros(7, int), "has 7 points; coord.npy has 40"),
    ],
)
def test_wrong_arrays_are_named(scenes, name, content, words):
    np.save(scenes / "train/scene0000_00" / name, content)
    with pytest.raises(InputError, match=rf"scene0000_00/{name}: {words}"):
        build("ScanNet", scenes)[0]


class Code:
    """Leaves a file where it is unpickled."""

    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return (open, (self.file, "w"))


def test_no_code_is_run(scenes, tmp_path):
    file, ran = scenes / "train/scene0000_00/color.npy", tmp_path / "ran"
    np.save(file, np.array([Code(ran)] * 40, object), allow_pickle=True)
    with pytest.raises(InputError, match=r"color\.npy: cannot be read .*Object arrays"):
        build("ScanNet", scenes)[0]
    file.write_bytes(pickle.dumps(Code(ran)))
    with pytest.raises(InputError, match=r"color\.npy: cannot be read"):
        build("ScanNet", scenes)[0]
    assert not ran.exists()


def test_damage_is_named(scenes):
    file = scenes / "train/scene0000_00/coord.npy"
    whole = file.read_bytes()
    for content in (b"", whole[:50], whole[:-9], b"PK\x03\x04" + whole):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"coord\.npy: cannot be read .*Pointcept's preprocessing"):
            build("ScanNet", scenes)[0]
    with file.open("wb") as stream:
        np.savez(stream, whole=np.zeros(3))
    with pytest.raises(InputError, match=r"coord\.npy: holds several arrays"):
        build("ScanNet", scenes)[0]


def test_missing_files(scenes, areas):
    (scenes / "val/scene0001_00/segment20.npy").unlink()
    with pytest.raises(MissingFileError, match=r"scene0001_00/segment20\.npy does not exist; write it anew"):
        build("ScanNet", scenes, split="val")
    with pytest.raises(MissingFileError, match=r"gone\.npy does not exist"):
        pointcept.read_array(scenes / "gone.npy", pointcept.FLOATS, 3)
    (areas / "Area_4").rename(areas / "elsewhere")
    with pytest.raises(MissingFileError, match=r"Area_4 has no <scene>/coord\.npy"):
        build("S3DIS", areas)
    for kind, root, words in (
        ("S3DIS", areas, r"Area_4' does not exist; expected[\s\S]*conferenceRoom_1/  coord.npy"),
        ("ScanNet", scenes.parent, r"train' does not exist; expected[\s\S]*segment20.npy"),
    ):
        config = {"type": f"Pointcept{kind}Dataset", "data_root": str(root), "split": "train"}
        with pytest.raises(FileNotFoundError, match=words):
            check_data(ConfigDict(train_dataloader={"dataset": config}), ("train",))


def test_the_earlier_layout_is_refused(scenes, areas):
    torch.save({"coord": torch.zeros(3, 3)}, scenes / "train/scene0009_00.pth")
    torch.save({}, areas / "Area_1/office_1.pth")
    with pytest.raises(InputError, match=r"scene0009_00\.pth is of an earlier layout.*can run code.*1\.5\.2 or later"):
        build("ScanNet", scenes)
    with pytest.raises(InputError, match=r"office_1\.pth is of an earlier layout"):
        build("S3DIS", areas)
