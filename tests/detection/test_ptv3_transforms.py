"""What Point Transformer V3's recipe does to clouds: each transform against what it should do, written out."""

import itertools

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, TRANSFORMS
from mmengine.structures import BaseDataElement

from visionpe.detection.clouds.elastic import smooth_noise
from visionpe.detection.clouds.mixing import mix_pairs
from visionpe.sparse import Voxels, voxels_of_points


def cloud(count=60):
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(count, 3))
    return {
        "points": rng.uniform(-2, 2, (count, 3)).astype(np.float32),
        "colors": rng.uniform(-0.9, 0.4, (count, 3)).astype(np.float32),
        "normals": (normals / np.linalg.norm(normals, axis=1, keepdims=True)).astype(np.float32),
        "labels": np.arange(count),
    }


def apply(kind, results=None, seed=0, **options):
    np.random.seed(seed)  # noqa: NPY002
    return TRANSFORMS.build({"type": kind, **options})(results or cloud())


@pytest.mark.parametrize(("axis", "plane"), [("x", (1, 2)), ("y", (2, 0)), ("z", (0, 1))])
def test_rotation_about_an_axis(axis, plane):
    before, after = cloud(), apply("RotateCloud", axis=axis, degrees=(30, 30))
    for key in ("points", "normals"):
        first, second = (before[key][:, i] for i in plane)
        cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)
        np.testing.assert_allclose(after[key][:, plane[0]], first * cos - second * sin, atol=1e-6)
        np.testing.assert_allclose(after[key][:, plane[1]], first * sin + second * cos, atol=1e-6)
        np.testing.assert_array_equal(after[key][:, "xyz".index(axis)], before[key][:, "xyz".index(axis)])
    small = [apply("RotateCloud", seed=i, axis=axis, degrees=(-3, 3))["points"] - before["points"] for i in range(20)]
    assert 0 < max(np.abs(s).max() for s in small) < 3 * np.sqrt(2) * np.radians(3)


def test_mirrors():
    before, seen = cloud(), set()
    for seed in range(30):
        after = apply("FlipCloud", seed=seed)
        signs = after["points"][0] / before["points"][0]
        seen.add(tuple(signs.round(4)))
        for key in ("points", "normals"):
            np.testing.assert_allclose(after[key], before[key] * signs, atol=1e-6)
    assert seen == {(a, b, 1.0) for a, b in itertools.product((-1.0, 1.0), repeat=2)}


def test_fewer_points():
    before, after = cloud(), apply("DropPoints", share=0.25, prob=1.0)
    kept = after["labels"]
    assert len(kept) == 45
    assert (np.diff(kept) > 0).all()
    for key in ("points", "colors", "normals"):
        np.testing.assert_array_equal(after[key], before[key][kept])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("DropPoints", {}),
        ("RotateCloud", {"prob": 0.5}),
        ("ElasticCloud", {}),
        ("ContrastColor", {}),
        ("ShiftColor", {}),
        ("JitterColor", {}),
    ],
)
def test_how_often(kind, options):
    given = cloud(8)
    step = TRANSFORMS.build({"type": kind, **options})
    np.random.seed(0)  # noqa: NPY002
    changed = [any(out[key] is not given[key] for key in given) for out in (step(given) for _ in range(300))]
    assert abs(np.mean(changed) - step.prob) < 0.1
    assert TRANSFORMS.build({"type": kind, "prob": 0})(given)["colors"] is given["colors"]


def test_colours():
    before = cloud()["colors"].astype(float)
    shifted = apply("ShiftColor", prob=1, ratio=0.05)["colors"] - before
    assert np.ptp(shifted, axis=0).max() < 1e-6
    assert 0 < np.abs(shifted).max() <= 0.1
    assert len(np.unique(shifted[0].round(4))) == 3
    furthest = [np.abs(apply("ShiftColor", seed=i, prob=1)["colors"] - before).max() for i in range(40)]
    assert 0.09 < max(furthest) <= 0.1 + 1e-6
    noise = apply("JitterColor", cloud(4000), prob=1, sigma=0.05)["colors"] - cloud(4000)["colors"]
    assert noise.std(0) == pytest.approx(0.1, rel=0.1)  # 0.05 of a range of 2
    assert apply("ShiftColor", {**cloud(), "colors": np.ones((60, 3), np.float32)}, 3, prob=1)["colors"].max() <= 1
    # Mixed with itself stretched to -1..1, at one share for all three channels.
    low, high = before.min(0), before.max(0)
    stretched = 2 * (before - low) / (high - low) - 1
    after = apply("ContrastColor", prob=1)["colors"]
    shares = (after - before) / (stretched - before)
    assert np.ptp(shares) < 1e-3
    assert 0 < shares.mean() < 1
    flat = {**cloud(), "colors": np.full((60, 3), 0.25, np.float32)}
    np.testing.assert_array_equal(apply("ContrastColor", flat, prob=1)["colors"], flat["colors"])


def test_elastic_distortion_against_loops():
    points, spacing = cloud(7)["points"].astype(float), 0.8
    np.random.seed(5)  # noqa: NPY002
    got = smooth_noise(points, spacing)
    np.random.seed(5)  # noqa: NPY002
    low = points.min(0)
    nodes = [int((points[:, a].max() - low[a]) // spacing) + 3 for a in range(3)]
    noise = np.random.randn(1, 3, *nodes)[0]  # noqa: NPY002
    for axis in (1, 2, 3) * 2:  # along one axis after the other, zeros beyond the ends
        padded = np.pad(noise, [(int(a == axis),) * 2 for a in range(4)])
        parts = [np.take(padded, range(i, i + noise.shape[axis]), axis) for i in range(3)]
        noise = sum(parts) / 3
    for row, point in enumerate(points):
        place = (point - low) / spacing + 1
        corner = np.floor(place).astype(int)
        wanted = np.zeros(3)
        for step in itertools.product((0, 1), repeat=3):
            share = np.prod([1 - abs(place[a] - corner[a] - step[a]) for a in range(3)])
            wanted += share * noise[(slice(None), *(corner + step))] if share > 0 else 0
        np.testing.assert_allclose(got[row], wanted, atol=1e-12)
    once = apply("ElasticCloud", steps=((0.8, 0.5),), prob=1)
    np.random.seed(0)  # noqa: NPY002
    np.random.uniform()  # noqa: NPY002
    wanted = cloud()["points"] + 0.5 * smooth_noise(cloud()["points"], 0.8)
    np.testing.assert_allclose(once["points"], wanted, atol=1e-6)
    np.testing.assert_array_equal(once["normals"], cloud()["normals"])


def test_crops_by_share():
    near = apply("CropCloud", share=0.5)["points"]
    assert len(near) == 30
    assert len(apply("CropCloud", share=0.5, max_voxels=12)["points"]) == 12
    before = cloud()["points"]
    away = np.square(before - near[:, None]).sum(-1)
    assert any(set(map(tuple, before[a.argsort()[:30]])) == set(map(tuple, near)) for a in away)


def test_features_of_both_recipes():
    points, colors = torch.rand(50, 3), torch.randint(0, 256, (50, 3), dtype=torch.uint8)
    normals = torch.randn(50, 3)
    own, voxel = voxels_of_points(points, size=0.3, colors=colors, normals=normals, recipe="ptv3")
    other, again = voxels_of_points(points, size=0.3, colors=colors, normals=normals)
    assert torch.equal(voxel, again)
    assert torch.equal(own.signals, other.signals)
    assert (own.features.shape[1], other.features.shape[1]) == (6, 9)
    first = torch.stack([(voxel == i).nonzero()[0, 0] for i in range(len(own))])
    torch.testing.assert_close(own.features[:, :3], colors[first] / 255)
    torch.testing.assert_close(own.features[:, 3:], normals[first])
    with pytest.raises(ValueError, match="recipe='ptv3' has features of colours"):
        voxels_of_points(points, size=0.3, recipe="ptv3")
    with pytest.raises(ValueError, match="recipe='ptv1' is unknown; allowed: swin3d, ptv3"):
        voxels_of_points(points, size=0.3, colors=colors, recipe="ptv1")
    steps = [{"type": "VoxelizeCloud", "size": 0.5, "keep": "first"}, {"type": "PackCloud", "recipe": "ptv3"}]
    packed = apply("CloudVotes", transforms=steps, views=[[], [{"type": "ScaleCloud", "scales": (0.5, 0.5)}]])
    assert packed["inputs"].features.shape[1] == 3
    assert packed["inputs"].features.min() >= 0
    assert packed["data_samples"].inverse.data.shape == (2, 60)
    counts = torch.bincount(packed["inputs"].cloud)
    assert counts[0] > counts[1]


def labelled(rows, first):
    coords = torch.cartesian_prod(torch.tensor([first]), *[torch.arange(first, first + rows)] * 3)
    sample = BaseDataElement(metainfo={"name": str(first)})
    sample.gt_sem_seg = BaseDataElement(data=torch.full((len(coords),), first))
    return Voxels(torch.full((len(coords), 1), float(first)), coords, coords[:, 1:] + 0.5), sample


def test_two_scenes_in_one():
    clouds, samples = zip(*(labelled(2, first) for first in (0, 1, 5)))
    winners = set()
    for seed in range(12):
        np.random.seed(seed)  # noqa: NPY002
        (both, alone), (sample, other) = mix_pairs(clouds, samples)
        assert alone is clouds[2]
        assert other is samples[2]
        assert len(both.checked()) == 15  # they share one cell
        assert not both.cloud.any()
        assert torch.equal(both.features[:, 0].long(), sample.gt_sem_seg.data)
        shared = (both.coords[:, 1:] == 1).all(1)
        winners.add(int(sample.gt_sem_seg.data[shared]))
        for first, voxels in zip((0, 1), clouds):
            left = both.coords[sample.gt_sem_seg.data == first, 1:].tolist()
            assert all(cell in left for cell in voxels.coords[:, 1:].tolist() if cell != [1, 1, 1])
    assert winners == {0, 1}
    preprocess = MODELS.build({"type": "CloudPreprocessor", "mix": 0.8})
    data = {"inputs": list(clouds), "data_samples": list(samples)}
    mixed = [len(preprocess(data, True)["inputs"]) == 2 for _ in range(100)]
    assert 0.65 < np.mean(mixed) < 0.95
    assert all(len(preprocess(data)["inputs"]) == 3 for _ in range(20))


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("RotateCloud", {"axis": "w"}, "axis='w' is unknown; allowed: x, y, z"),
        ("RotateCloud", {"degrees": (3, -3)}, r"degrees=\(3, -3\) must be two angles"),
        ("FlipCloud", {"prob": 2}, "prob=2 must be"),
        ("DropPoints", {"share": 1}, "share=1 must be"),
        ("ShiftColor", {"ratio": -1}, "ratio=-1 must be"),
        ("ElasticCloud", {"steps": [(0, 1)]}, "steps=0 must be"),
        ("CropCloud", {"share": 0}, "share=0 must be"),
        ("CropCloud", {"max_voxels": 0}, "max_voxels=0 must be positive"),
        ("CloudVotes", {"times": 2, "views": [[]]}, "views=.* with times=2"),
        ("CloudVotes", {"views": []}, r"views=\[\] with times=1: allowed: one view or more"),
        ("PackCloud", {"recipe": "pt"}, "recipe='pt' is unknown; allowed: swin3d, ptv3"),
    ],
)
def test_refused(kind, options, words):
    with pytest.raises(ValueError, match=words):
        TRANSFORMS.build({"type": kind, **options})
