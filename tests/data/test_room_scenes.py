"""Rooms built by rule, and the motorcycle."""

import sys

import numpy as np
import pytest

from visionpe.data.motorcycle import load_motorcycle, unproject
from visionpe.data.rooms.layout import Cuboids, overlaps
from visionpe.data.rooms.scenes import CLASSES, PALETTE, make_layout, make_room, scan

POINTS = 6000


def local(points, cuboids, i):
    """Points in the frame of a cuboid, in half sides: its inside is -1..1."""
    c, s = np.cos(cuboids.angles[i]), np.sin(cuboids.angles[i])
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return (points - cuboids.centres[i]) @ turn / cuboids.halves[i]


def one(centre, sides, angle=0.0):
    none = np.zeros(1, np.int64)
    return Cuboids(np.array([centre], float), np.array([sides]) / 2, np.array([float(angle)]), none, none, none)


def test_a_seed_gives_the_same_room_and_another_seed_another():
    first, again, other = make_room(3, points=POINTS), make_room(3, points=POINTS), make_room(4, points=POINTS)
    assert {key: (x.dtype.name, x.shape) for key, x in first.items()} == {
        "points": ("float32", (POINTS, 3)),
        "colors": ("uint8", (POINTS, 3)),
        "labels": ("int64", (POINTS,)),
        "normals": ("float32", (POINTS, 3)),
    }
    assert all(np.array_equal(first[key], again[key]) for key in first)
    assert not np.array_equal(first["points"], other["points"])


def test_every_class_is_there_and_named():
    assert len(CLASSES) == len(PALETTE) == len(set(PALETTE))
    for seed in range(8):
        counts = np.bincount(make_room(seed, points=POINTS)["labels"], minlength=len(CLASSES))
        assert len(counts) == len(CLASSES)
        assert (counts > 10).all(), f"seed {seed}: {dict(zip(CLASSES, counts))}"


def test_furniture_stands_apart_and_inside():
    for seed in range(6):
        layout = make_layout(seed, tables=(2, 3), chairs=(6, 8), boxes=(6, 10))
        parts = layout.furniture
        hit = overlaps(parts, parts, -1e-6) & (parts.objects[:, None] != parts.objects)
        assert not hit.any(), f"seed {seed}"
        reach = parts.reach()
        assert ((parts.centres[:, :2] - reach > 0) & (parts.centres[:, :2] + reach < layout.size[:2])).all()
        assert (parts.centres[:, 2] - parts.halves[:, 2] > -1e-9).all()


def test_overlap_is_that_of_turned_cuboids():
    square = one([0, 0, 0], [2, 2, 2])
    assert overlaps(square, one([2.3, 0, 0], [2, 2, 2], np.pi / 4)).all()  # a corner reaches in
    assert not overlaps(square, one([2.5, 0, 0], [2, 2, 2], np.pi / 4)).any()
    # Boxes about both overlap; the cuboids do not.
    assert not overlaps(square, one([1.8, 1.8, 0], [2, 2, 2], np.pi / 4)).any()
    assert not overlaps(square, one([0, 0, 2.1], [2, 2, 2])).any()
    assert overlaps(square, one([0, 0, 2.1], [2, 2, 2]), 0.2).all()


def test_points_lie_on_faces_and_normals_point_at_a_sensor():
    layout = make_layout(1, views=(1, 1))
    room = scan(layout, points=POINTS, noise=0.0, seed=1)
    points, parts = room["points"].astype(float), layout.furniture
    rooms = np.stack([points[:, 2], *(x for a in (0, 1) for x in (points[:, a], points[:, a] - layout.size[a]))], 1)
    off = np.abs(rooms).min(1)  # from the shell
    for i in range(len(parts)):
        inside = local(points, parts, i)
        assert (np.abs(inside).max(1) > 1 - 1e-4).all()  # nothing within
        on = (np.abs(inside) < 1 + 1e-4).all(1)
        off[on] = 0
        wrong = on & (points[:, 2] > 1e-3) & (room["labels"] != parts.labels[i])
        assert wrong.sum() <= 0.02 * on.sum()  # where a leg meets a seat
    assert off.max() < 1e-4
    assert ((layout.viewpoints[0] - points) * room["normals"]).sum(1).min() > 0


def test_what_is_hidden_from_every_sensor_is_missing():
    layout = make_layout(0, views=(1, 1))
    room = scan(layout, points=POINTS, noise=0.0, seed=0)
    # The straight way from each point to the sensor meets no furniture.
    share = np.linspace(0.02, 0.98, 60)[:, None, None]
    some = room["points"][::20].astype(float)
    way = some + share * (layout.viewpoints[0] - some)
    for i in range(len(layout.furniture)):
        assert not (np.abs(local(way, layout.furniture, i)) < 1 - 1e-3).all(-1).any()
    # And so it has holes: the same floor without furniture is whole.
    empty = make_layout(0, views=(1, 1), tables=(0, 0), chairs=(0, 0), boxes=(0, 0))
    empty.size, empty.viewpoints = layout.size, layout.viewpoints
    bare = scan(empty, points=POINTS, noise=0.0, seed=0)

    def floor(seen):
        return len(np.unique((seen["points"][seen["labels"] == 0][:, :2] / 0.25).astype(int), axis=0))

    assert floor(room) < 0.9 * floor(bare)


def test_noise_is_along_the_ray_and_as_large_as_asked():
    layout = make_layout(2, views=(1, 1))
    sharp, noisy = (scan(layout, points=POINTS, noise=noise, seed=2)["points"].astype(float) for noise in (0, 0.01))
    rays = sharp - layout.viewpoints[0]
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    moved = noisy - sharp
    along = (moved * rays).sum(1)
    assert 0.009 < along.std() < 0.011
    assert np.abs(moved - along[:, None] * rays).max() < 1e-5


def test_colour_alone_does_not_tell_the_class():
    rooms = [make_room(seed, points=2000) for seed in range(10)]
    colours, labels = (np.concatenate([room[key] for room in rooms]) for key in ("colors", "labels"))
    cells = (colours // 32).astype(int) @ [1, 8, 64]
    # The best guess from the colour, with every class counting the same.
    tally = np.zeros((512, len(CLASSES)))
    np.add.at(tally, (cells, labels), 1 / np.bincount(labels)[labels])
    assert tally.max(1).sum() / len(CLASSES) < 0.6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"points": 0}, "points=0"),
        ({"noise": -1.0}, "noise=-1.0"),
        ({"side": (1.0, 3.0)}, r"side=\(1.0, 3.0\)"),
        ({"views": (0, 2)}, r"views=\(0, 2\)"),
        ({"chairs": (4, 2)}, r"chairs=\(4, 2\)"),
        ({"height": (1.0, 2.0)}, "height="),
    ],
)
def test_settings_out_of_range_are_refused_by_name(options, words):
    with pytest.raises(ValueError, match=words):
        make_room(0, **options)
    with pytest.raises(ValueError, match="seed=-1"):
        make_room(-1)


def test_the_motorcycle_is_unprojected_to_metres():
    scan = load_motorcycle()
    points = scan["points"].astype(float)
    assert points.shape == (343_274, 3)
    assert scan["colors"].dtype == np.uint8
    assert len(np.unique(np.floor(points / 0.02).astype(int) @ [1, 10**4, 10**8])) == 26_682
    assert 2 < points[:, 1].min() < points[:, 1].max() < 5.1  # the garage is 5 m deep
    np.testing.assert_allclose(np.linalg.norm(scan["normals"], axis=1), 1, atol=1e-5)
    assert ((scan["normals"] * points).sum(1) < 1e-5).all()


def test_unprojecting_leaves_out_unknown_disparity_and_keeps_the_baseline():
    disparity = np.full((6, 8), 20.0, np.float32)
    disparity[0] = (np.inf, np.nan, 0, -1, 20, 20, 20, 20)
    scan = unproject(np.zeros((6, 8, 3), np.uint8), disparity)
    points = scan["points"].astype(float)
    assert len(points) == 44
    # A point and the right camera, a baseline further on, are seen disparity pixels apart.
    left = 994.978 * points[:, 0] / points[:, 1]
    right = 994.978 * (points[:, 0] - 0.193001) / points[:, 1]
    np.testing.assert_allclose(left - right, 20 + 31.086, rtol=1e-5)
    np.testing.assert_allclose(scan["normals"][-1], [0, -1, 0], atol=1e-6)


def test_without_scikit_image_the_motorcycle_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    with pytest.raises(ModuleNotFoundError, match="scikit-image: pip install"):
        load_motorcycle()
