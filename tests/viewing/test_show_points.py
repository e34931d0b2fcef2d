"""The page and the picture of a point cloud."""

import base64
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from visionpe.cli import points as show_points
from visionpe.utils.errors import InputError
from visionpe.viewing.clouds.camera import View
from visionpe.viewing.clouds.cloud import Cloud, read_cloud
from visionpe.viewing.clouds.page import write_page
from visionpe.viewing.clouds.picture import NOWHERE, RIGHT, WRONG, colourings, rasterise


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, [3, 2, 1.5], (500, 3)).astype(np.float32)
    labels, predictions = rng.integers(0, 3, (2, 500))
    labels[:7] = -1
    return {
        "points": points,
        "colors": rng.integers(0, 256, (500, 3), np.uint8),
        "labels": labels,
        "predictions": predictions,
        "normals": np.tile(np.float32([0, 0, 2]), (500, 1)),
    }


def inside(path):
    """What a page holds: its info, and the arrays decoded."""
    text = path.read_text()
    about = json.loads(re.search(r'id="about">(.*?)</script>', text, re.S).group(1))
    blob = base64.b64decode(re.search(r'id="data">(.*?)</script>', text, re.S).group(1))
    kinds = {"points": "<u2", "normals": np.int8}
    found = {}
    for key, start in about["parts"].items():
        data = blob[start : start + about["sizes"][key] * about["count"]]
        found[key] = np.frombuffer(data, kinds.get(key, np.uint8)).reshape(about["count"], -1)
    return about, found


def test_the_page_holds_every_point(tmp_path, arrays):
    np.savez(tmp_path / "scan.npz", **arrays)
    command = [str(tmp_path / "scan.npz"), "--out", str(tmp_path / "seen"), "--classes", "a,b,</script>"]
    assert show_points.main(command) == 0
    about, found = inside(tmp_path / "seen.html")
    assert about["count"] == 500
    assert about["classes"] == ["a", "b", "</script>"]
    places = np.array(about["low"]) + found["points"] * (about["span"] / 65535)
    assert np.abs(places - arrays["points"]).max() <= about["span"] / 65535
    assert np.array_equal(found["colors"], arrays["colors"])
    assert np.array_equal(found["labels"][:, 0], np.where(arrays["labels"] < 0, 255, arrays["labels"]))
    assert np.array_equal(found["predictions"][:, 0], arrays["predictions"])
    assert (found["normals"] == [0, 0, 127]).all()
    picture = Image.open(tmp_path / "seen.png")
    assert picture.width > 3.9 * 800  # RGB, label, prediction, errors
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scan.npz", "seen.html", "seen.png"]


def test_the_page_needs_nothing_from_elsewhere(tmp_path, arrays):
    write_page(tmp_path / "seen.html", Cloud(**arrays), View())
    text = (tmp_path / "seen.html").read_text()
    assert not re.search(r"(?:src|href)\s*=|@import|url\(|https?://|fetch\(", text)
    assert "@DATA@" not in text
    assert "@ABOUT@" not in text
    if node := shutil.which("node"):
        script = re.findall(r"<script>(.*?)</script>", text, re.S)[-1]
        (tmp_path / "page.js").write_text(script)
        subprocess.run([node, "--check", str(tmp_path / "page.js")], check=True)


def test_a_large_cloud_is_thinned_and_stays_small(tmp_path):
    rng = np.random.default_rng(0)
    many = Cloud(rng.random((120_000, 3)), labels=rng.integers(0, 9, 120_000), normals=rng.normal(size=(120_000, 3)))
    assert write_page(tmp_path / "seen.html", many, View(), most=100_000) == 100_000
    assert (tmp_path / "seen.html").stat().st_size < 5e6


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".ply"])
def test_files_of_every_kind_are_read_alike(tmp_path, arrays, suffix):
    file = tmp_path / f"scan{suffix}"
    columns = [*arrays["points"].T, *arrays["colors"].T, arrays["labels"], arrays["predictions"]]
    if suffix == ".npz":
        np.savez(file, **arrays)
    elif suffix == ".npy":
        np.save(file, np.stack(columns, 1))
    else:
        plyfile = pytest.importorskip("plyfile")
        names = ["x", "y", "z", "red", "green", "blue", "label", "prediction"]
        kinds = [*"fff", *("u1",) * 3, "i4", "i4"]
        rows = np.array(list(zip(*columns)), list(zip(names, kinds)))
        plyfile.PlyData([plyfile.PlyElement.describe(rows, "vertex")]).write(str(file))
    cloud, expected = read_cloud(file), Cloud(**arrays)
    for key in ("points", "colors", "labels", "predictions"):
        assert np.array_equal(getattr(cloud, key), getattr(expected, key)), key
    assert cloud.classes == ["class 0", "class 1", "class 2"]


def test_errors_are_red_and_unknown_labels_dim(arrays):
    cloud = Cloud(**arrays)
    errors = colourings(cloud)["errors"]
    wrong = arrays["labels"] != arrays["predictions"]
    assert (errors[:7] == NOWHERE).all()
    assert (errors[7:] == np.where(wrong[7:, None], WRONG, RIGHT)).all()
    assert (colourings(cloud)["label"][7:] == np.array(cloud.palette)[arrays["labels"][7:]]).all()


def plane(height, half, size=60):
    x, y = np.meshgrid(*2 * [np.linspace(-half, half, size)])
    return np.stack((x, y, np.full_like(x, height)), -1).reshape(-1, 3)


def test_the_nearer_point_is_drawn_and_what_faces_away_is_not():
    points = np.concatenate((plane(0, 1), plane(1, 0.4)))
    upper = np.arange(len(points)) >= len(points) // 2
    for order in (np.arange(len(points)), np.arange(len(points))[::-1]):
        index, light = rasterise(Cloud(points[order]), View(0, 89), 200, 200)
        seen = np.where(index < 0, -1, upper[order][index])
        assert (seen[90:110, 90:110] == 1).mean() > 0.99
        assert (seen[[40, 100, 160, 100], [100, 40, 100, 160]] == 0).all()
        assert light[index >= 0].min() >= 0
        assert light.max() <= 1
    turned = np.where(upper[:, None], [0, 0, -1.0], [0, 0, 1.0])
    index, _ = rasterise(Cloud(points, normals=turned), View(0, 89), 200, 200)
    assert not upper[index[index >= 0]].any()


def test_a_single_point_can_be_shown(tmp_path):
    np.savez(tmp_path / "one.npz", points=np.ones((1, 3)))
    assert show_points.main([str(tmp_path / "one.npz"), "--out", str(tmp_path / "seen")]) == 0
    assert inside(tmp_path / "seen.html")[0]["count"] == 1


def test_what_is_higher_is_left_out(tmp_path, arrays, monkeypatch):
    monkeypatch.setattr("visionpe.viewing.clouds.picture.write_png", lambda *args, **kwargs: None)
    np.savez(tmp_path / "scan.npz", **arrays)
    assert show_points.main([str(tmp_path / "scan.npz"), "--top", "1", "--out", str(tmp_path / "seen")]) == 0
    heights = arrays["points"][:, 2] - arrays["points"][:, 2].min()
    assert inside(tmp_path / "seen.html")[0]["count"] == (heights <= 1).sum()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"points": np.zeros((0, 3))}, "points is empty"),
        ({"points": np.zeros((5, 2))}, r"points has shape \(5, 2\)"),
        ({"points": np.full((500, 3), np.nan)}, "points holds 500 rows with NaN"),
        ({"colors": np.zeros((4, 3))}, r"colors has shape \(4, 3\)"),
        ({"colors": np.full((500, 3), -1.0)}, "colors reach -1"),
        ({"labels": np.zeros(4, int)}, r"labels has shape \(4,\)"),
        ({"labels": np.full(500, 0.5)}, "labels must be whole"),
        ({"predictions": np.full(500, 999)}, "predictions reach 999"),
        ({"normals": np.zeros((500, 2))}, "normals has shape"),
        ({"classes": ["a"]}, "only 1 are named"),
    ],
)
def test_clouds_that_cannot_be_are_refused_by_name(arrays, change, words):
    with pytest.raises(InputError, match=words):
        Cloud(**{**arrays, **change})


def test_bad_files_and_arguments_are_one_clear_line(tmp_path, arrays, capsys):
    (tmp_path / "text.ply").write_text("no ply")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "colours.npz", colors=arrays["colors"])
    np.save(tmp_path / "flat.npy", np.zeros(4))
    np.savez(tmp_path / "scan.npz", **arrays)
    scan = str(tmp_path / "scan.npz")
    cases = {
        "no such file": [str(tmp_path / "none.npz")],
        "allowed: .npz, .npy, .ply": [str(tmp_path / "scan.las")],
        "text.ply": [str(tmp_path / "text.ply")],
        "empty.npz: cannot be read": [str(tmp_path / "empty.npz")],
        "has no points, only colors": [str(tmp_path / "colours.npz")],
        "has shape (4,)": [str(tmp_path / "flat.npy")],
        "give one of FILE": [],
        "--room SEED": [scan, "--motorcycle"],
        "--elevation 90.0": [scan, "--elevation", "90"],
        "--azimuth nan": [scan, "--azimuth", "nan"],
        "--top -1.0": [scan, "--top", "-1"],
        "--most 0": [scan, "--most", "0"],
        "only 2 are named": [scan, "--classes", "a,b"],
        "--classes: only for a FILE": ["--motorcycle", "--classes", "a"],
    }
    for words, arguments in cases.items():
        assert show_points.main([*arguments, "--out", str(tmp_path / "seen")]) == 2, words
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
    assert not list(tmp_path.glob("seen*"))
