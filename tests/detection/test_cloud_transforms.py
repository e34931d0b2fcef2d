"""Transforms of clouds: what each keeps, and the way from points to voxels and back."""

import numpy as np
import pytest
import torch
from mmengine.registry import TRANSFORMS

import visionpe.detection  # noqa: F401
from visionpe.sparse import Voxels


@pytest.fixture
def cloud():
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(400, 3))
    return {
        "points": rng.uniform(-2, 3, (400, 3)).astype(np.float32),
        "colors": rng.uniform(-1, 1, (400, 3)).astype(np.float32),
        "normals": (normals / np.linalg.norm(normals, axis=1, keepdims=True)).astype(np.float32),
        "labels": rng.integers(0, 5, 400),
        "name": "made",
    }


@pytest.fixture(autouse=True)
def _seed():
    np.random.seed(0)  # noqa: NPY002  the transforms draw from the global generator


def make(kind, **kwargs):
    return TRANSFORMS.build({"type": kind, **kwargs})


def distances(points):
    return np.linalg.norm(points[:, None] - points, axis=-1)


ALL = [
    make("RotateCloud"),
    make("ScaleCloud"),
    make("JitterCloud"),
    make("DropColor", prob=1),
    make("SwapAxes"),
    make("VoxelizeCloud", size=0.5),
    make("VoxelizeCloud", size=0.5, keep="first"),
]


@pytest.mark.parametrize("transform", ALL, ids=lambda t: type(t).__name__)
def test_what_came_in_is_not_changed(cloud, transform):
    before = {key: np.copy(value) for key, value in cloud.items()}
    out = transform(cloud)
    assert out is not cloud
    for key, value in before.items():
        np.testing.assert_array_equal(cloud[key], value)
    assert all(out[key].dtype == cloud[key].dtype for key in cloud if key != "name")


def test_rotation_keeps_distances_and_height_and_turns_normals(cloud):
    out = make("RotateCloud")(cloud)
    np.testing.assert_allclose(distances(out["points"]), distances(cloud["points"]), atol=1e-5)
    np.testing.assert_array_equal(out["points"][:, 2], cloud["points"][:, 2])
    assert np.abs(out["points"] - cloud["points"]).max() > 0.5
    # Normals stand to the points as before.
    np.testing.assert_allclose(
        (out["points"] * out["normals"]).sum(1), (cloud["points"] * cloud["normals"]).sum(1), atol=1e-5
    )
    np.testing.assert_array_equal(out["colors"], cloud["colors"])


def test_scale(cloud):
    factors = []
    for _ in range(200):
        ratio = make("ScaleCloud", scales=(0.8, 1.2))(cloud)["points"] / cloud["points"]
        assert np.ptp(ratio) < 1e-5
        factors.append(ratio.mean())
    assert 0.8 <= min(factors) < 0.82
    assert 1.18 < max(factors) <= 1.2


def test_jitter_is_small(cloud):
    moved = make("JitterCloud", sigma=0.015, clip=0.02)(cloud)["points"] - cloud["points"]
    assert np.abs(moved).max() == pytest.approx(0.02, abs=1e-6)
    assert 0.01 < moved.std() < 0.015


def test_colour_is_dropped_now_and_then(cloud):
    drop = make("DropColor", prob=0.2)
    dropped = [not drop(cloud)["colors"].any() for _ in range(500)]
    assert 0.15 < np.mean(dropped) < 0.25


def test_swap_twice_is_nothing(cloud):
    swap = make("SwapAxes")
    once = swap(cloud)
    np.testing.assert_array_equal(once["points"], cloud["points"][:, [0, 2, 1]])
    np.testing.assert_array_equal(once["normals"], cloud["normals"][:, [0, 2, 1]])
    np.testing.assert_array_equal(swap(once)["points"], cloud["points"])


def test_voxels_of_a_swapped_cloud_are_swapped_voxels(cloud):
    voxelize = make("VoxelizeCloud", size=0.3, keep="first")
    plain, swapped = voxelize(cloud), voxelize(make("SwapAxes")(cloud))
    np.testing.assert_array_equal(swapped["coords"], plain["coords"][:, [0, 2, 1]])
    np.testing.assert_array_equal(swapped["inverse"], plain["inverse"])


@pytest.mark.parametrize("keep", ["random", "first"])
def test_one_point_a_voxel(cloud, keep):
    out = make("VoxelizeCloud", size=0.7, keep=keep)(cloud)
    assert len(np.unique(out["coords"], axis=0)) == len(out["coords"]) < 400
    assert (np.floor(out["points"]) == out["coords"]).all()
    assert (out["coords"].min(0) == 0).all()
    # Each row is that of one point.
    metres = out["points"] * 0.7 + cloud["points"].min(0)
    row = np.abs(metres[:, None] - cloud["points"]).sum(-1).argmin(1)
    np.testing.assert_allclose(metres, cloud["points"][row], atol=1e-5)
    for key in ("colors", "normals", "labels"):
        np.testing.assert_array_equal(out[key], cloud[key][row])
    if keep == "first":
        first = np.unique(out["inverse"], return_index=True)[1]
        np.testing.assert_array_equal(row, first[np.arange(len(row))])


def test_the_way_back_to_the_points(cloud):
    out = make("VoxelizeCloud", size=0.7, keep="first")(cloud)
    np.testing.assert_array_equal(out["truth"], cloud["labels"])
    places = (cloud["points"] - cloud["points"].min(0)) / 0.7
    assert (np.floor(places.astype(np.float64)) == out["coords"][out["inverse"]]).mean() > 0.99
    assert "inverse" not in make("VoxelizeCloud", size=0.7)(cloud)


def test_positions_never_leave_their_cell():
    edges = np.linspace(0, 50, 40_001)[:, None].repeat(3, 1).astype(np.float32)
    rows = {"points": edges, "colors": edges, "labels": np.zeros(len(edges), int)}
    out = make("VoxelizeCloud", size=0.05, keep="first")(rows)
    offset = out["points"] - out["coords"]
    assert offset.min() >= 0
    assert offset.max() < 1


def test_random_points_of_voxels_come_from_the_seed(cloud):
    voxelize, chosen = make("VoxelizeCloud", size=1.0), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        chosen.append(voxelize(cloud)["points"])
    np.testing.assert_array_equal(chosen[0], chosen[1])
    assert not np.array_equal(chosen[0], chosen[2])


def test_crop_keeps_the_nearest(cloud):
    whole = make("VoxelizeCloud", size=0.3)(cloud)
    out = make("CropCloud", max_voxels=50)(whole)
    assert {len(out[key]) for key in ("points", "coords", "colors", "normals", "labels")} == {50}
    order = [np.flatnonzero((whole["coords"] == row).all(1)).item() for row in out["coords"]]
    assert order == sorted(order)
    # One of the kept voxels is the centre: all others are further from it.
    far = np.delete(whole["points"], order, axis=0)
    reach = [
        np.linalg.norm(out["points"] - c, axis=1).max() <= np.linalg.norm(far - c, axis=1).min() for c in out["points"]
    ]
    assert any(reach)
    assert make("CropCloud", max_voxels=1000)(whole) is whole


def test_pack(cloud):
    results = make("VoxelizeCloud", size=0.3)(cloud)
    packed = make("PackCloud", normals=True)(results)
    voxels = packed["inputs"].checked()
    assert isinstance(voxels, Voxels)
    features, signals = voxels.features.numpy(), voxels.signals.numpy()
    np.testing.assert_array_equal(features[:, :3], results["colors"])
    np.testing.assert_array_equal(features[:, 3:6], results["normals"])
    np.testing.assert_allclose(features[:, 6:], results["points"] - results["coords"])
    np.testing.assert_array_equal(signals[:, :3], results["points"])
    np.testing.assert_allclose(signals[:, 3:] * 1.001, features[:, :6], atol=1e-6)
    assert features.dtype == signals.dtype == np.float32
    np.testing.assert_array_equal(packed["data_samples"].gt_sem_seg.data, results["labels"])
    assert make("PackCloud")(results)["inputs"].features.shape[1] == 6


def test_votes_are_turned_views(cloud):
    view = [{"type": "VoxelizeCloud", "size": 0.3, "keep": "first"}, {"type": "PackCloud"}]
    packed = make("CloudVotes", times=3, transforms=view)(cloud)
    sample, voxels = packed["data_samples"], packed["inputs"].checked()
    assert voxels.cloud.unique().tolist() == [0, 1, 2]
    assert sample.inverse.data.shape == (3, 400)
    np.testing.assert_array_equal(sample.gt_sem_seg.data, cloud["labels"])
    extents = []
    for places, inverse in zip(voxels.split(voxels.positions), sample.inverse.data):
        assert int(inverse.max()) == len(places) - 1
        of_points = places[inverse].numpy()  # within a voxel of the points, in each view
        assert np.abs(distances(of_points) * 0.3 - distances(cloud["points"])).max() < 0.3 * 2 * 3**0.5
        extents.append(places.amax(0))
    assert not torch.allclose(extents[0], extents[1], atol=0.1)
    single = make("CloudVotes", times=1, transforms=view)(cloud)
    plain = make("VoxelizeCloud", size=0.3, keep="first")(cloud)
    np.testing.assert_array_equal(single["inputs"].positions, plain["points"])


@pytest.mark.parametrize(
    ("kind", "kwargs", "message"),
    [
        ("ScaleCloud", {"scales": (1.2, 0.8)}, "scales="),
        ("JitterCloud", {"clip": 0}, "clip=0"),
        ("DropColor", {"prob": 2}, "prob=2 is out of range; allowed: 0 to 1"),
        ("VoxelizeCloud", {"size": 0}, "size=0 must be positive"),
        ("VoxelizeCloud", {"size": 1, "keep": "last"}, "keep='last' is unknown; allowed: random, first"),
        ("CropCloud", {"max_voxels": 0}, "max_voxels=0 must be positive"),
        ("CloudVotes", {"times": 0, "transforms": []}, "times=0 must be positive"),
    ],
)
def test_bad_keywords(kind, kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(kind, **kwargs)


def test_normals_that_are_not_there(cloud):
    results = make("VoxelizeCloud", size=0.3)({key: cloud[key] for key in ("points", "colors", "labels")})
    with pytest.raises(ValueError, match="have no normals"):
        make("PackCloud", normals=True)(results)
