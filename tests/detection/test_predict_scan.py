"""A cloud through a model, end to end, from one command."""

import base64
import json
import re

import numpy as np
import pytest
import timm
import torch
from mmengine.registry import MODELS
from torch import nn

from visionpe.cli import points_predict as predict_scan
from visionpe.data.rooms.scenes import make_room
from visionpe.detection.clouds.stopwatch import Stopwatch
from visionpe.detection.running.runner import load_config
from visionpe.sparse import Voxels, voxelize, voxels_of_points

TINY = {"embed_dims": (8, 16), "depths": (1, 1), "num_heads": (2, 2), "window_size": (3, 3), "num_classes": 4}
TINY_PTV3 = {
    "embed_dims": (12, 24),
    "depths": (1, 1),
    "num_heads": (2, 2),
    "patch_size": 16,
    "strides": (2,),
    "decoder_dims": (12,),
    "decoder_depths": (1,),
    "decoder_heads": (2,),
}
KWARGS = ["--model-kwargs", *(f"{key}={value}" for key, value in TINY.items())]
CONFIG = "configs/rooms/swin3d_tiny_crse.py"


@pytest.fixture(scope="module")
def room():
    return make_room(0, points=1500)


@pytest.fixture
def scan(tmp_path, room):
    np.savez(tmp_path / "scan.npz", **room)
    return [str(tmp_path / "scan.npz"), "--voxel", "0.1", "--out", str(tmp_path / "seen")]


@pytest.fixture
def no_picture(monkeypatch):
    monkeypatch.setattr("visionpe.viewing.clouds.picture.write_png", lambda *args, **kwargs: None)


def column(path, key):
    """One array of the page."""
    text = path.read_text()
    about = json.loads(re.search(r'id="about">(.*?)</script>', text, re.S).group(1))
    blob = base64.b64decode(re.search(r'id="data">(.*?)</script>', text, re.S).group(1))
    size = about["sizes"][key] * about["count"]
    return about, np.frombuffer(blob[about["parts"][key] :][:size], np.uint8).reshape(about["count"], -1)


def test_predictions_are_those_of_the_model_for_the_voxel_of_each_point(tmp_path, scan, room, capsys, no_picture):
    torch.manual_seed(1)
    model = timm.create_model("swin3d_s_unet", **TINY).eval()
    nn.init.normal_(model.classifier[-1].weight)  # not the same class everywhere
    torch.save(model.state_dict(), tmp_path / "model.pth")
    assert predict_scan.main([*scan, "--checkpoint", str(tmp_path / "model.pth"), *KWARGS]) == 0
    about, found = column(tmp_path / "seen.html", "predictions")
    places = torch.from_numpy((room["points"] - room["points"].min(0)) / np.float32(0.1))
    coords, chosen, voxel = voxelize(places, size=1.0)
    colours = torch.from_numpy(room["colors"] / np.float32(127.5) - 1)[chosen]
    features = torch.cat((colours, places[chosen] - coords[:, 1:]), 1)
    with torch.inference_mode():
        scores = model(Voxels(features, coords, torch.cat((places[chosen], colours / 1.001), 1)))
    expected = scores.argmax(1)[voxel].numpy()
    assert len(np.unique(expected)) > 1
    assert (found[:, 0] == expected).mean() > 0.995  # a place on the edge of a cell may round otherwise
    assert about["start"] == "prediction"
    assert "labels" not in about["parts"]  # 5 classes of labels are not those of 4 scores
    out = capsys.readouterr().out
    for word in (
        "voxelise",
        "stem_layer",
        "layers.0.downsample",
        "upsamples.0",
        "encoder",
        "decoder",
        f"{len(coords):,}",
    ):
        assert word in out


def test_point_transformer_v3_reads_colours_and_normals(tmp_path, scan, room, capsys, no_picture):
    options = {**TINY_PTV3, "num_classes": 4}
    words = ["--model", "ptv3_b_unet", "--model-kwargs", *(f"{k}={v}".replace(" ", "") for k, v in options.items())]
    torch.manual_seed(1)
    model = timm.create_model("ptv3_b_unet", **options).eval()
    nn.init.normal_(model.classifier.weight)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    assert predict_scan.main([*scan, "--checkpoint", str(tmp_path / "model.pth"), *words]) == 0
    _, found = column(tmp_path / "seen.html", "predictions")
    points, colors, normals = (torch.from_numpy(room[key]) for key in ("points", "colors", "normals"))
    voxels, voxel = voxels_of_points(points, size=0.1, colors=colors, normals=normals, recipe="ptv3")
    with torch.inference_mode():
        expected = model(voxels).argmax(1)[voxel].numpy()
    assert len(np.unique(expected)) > 1
    assert (found[:, 0] == expected).mean() > 0.995
    bare = {key: value for key, value in room.items() if key != "normals"}
    np.savez(tmp_path / "scan.npz", **bare)
    assert predict_scan.main([*scan, *words]) == 0  # random weights, of colours alone
    assert predict_scan.main([*scan, "--checkpoint", str(tmp_path / "model.pth"), *words]) == 2
    assert "have no normals" in capsys.readouterr().err


def test_random_weights_are_said_and_features_shown(tmp_path, scan, capsys):
    assert predict_scan.main([*scan, "--model", "swin3d_s", *KWARGS]) == 0
    about, found = column(tmp_path / "seen.html", "features")
    assert about["start"] == "features"
    assert "predictions" not in about["parts"]
    assert found.std(0).min() > 20  # all three directions are used
    assert "random weights" in capsys.readouterr().out
    assert (tmp_path / "seen.png").stat().st_size > 1000


def test_a_config_and_its_checkpoint_name_the_classes(tmp_path, room, capsys, no_picture):
    np.savez(tmp_path / "scan.npz", **room)
    trained = MODELS.build(load_config(CONFIG).model)
    nn.init.constant_(trained.model.classifier[-1].bias[3:4], 1e3)  # chairs everywhere
    torch.save(trained.state_dict(), tmp_path / "model.pth")
    where = [str(tmp_path / "scan.npz"), "--config", CONFIG, "--checkpoint", str(tmp_path / "model.pth")]
    assert predict_scan.main([*where, "--out", str(tmp_path / "seen")]) == 0
    about, found = column(tmp_path / "seen.html", "predictions")
    assert about["classes"] == ["floor", "wall", "table", "chair", "box"]
    assert (found == 3).all()
    right = 100 * (room["labels"] == 3).mean()
    assert f"right: {right:.1f} %" in capsys.readouterr().out


def test_parts_are_timed_without_the_parts_inside_them():
    class Slow(nn.Module):
        def __init__(self, inner=None):
            super().__init__()
            self.downsample = inner

        def forward(self, x):
            clock[0] += 1
            return self.downsample(x) if self.downsample is not None else x

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([Slow(Slow()), Slow()])
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return self.head(x)

    clock = [0.0]
    model = Model()
    watch = Stopwatch(model)
    watch.now = lambda: clock[0]
    with watch:
        model(torch.zeros(5, 3))
    model(torch.zeros(7, 3))  # no longer watched
    assert {name: part.seconds for name, part in watch.parts.items()} == {
        "layers.0.downsample": 1,
        "layers.0": 1,
        "layers.1": 1,
        "head": 0,
    }
    assert watch.parts["head"].shape == (5, 2)
    assert [part.decoder for part in watch.parts.values()] == [False, False, False, True]


def test_arguments_that_do_not_go_together_are_one_clear_line(tmp_path, scan, capsys):
    other = tmp_path / "other.pth"
    torch.save({"a": torch.zeros(1)}, other)
    cases = {
        "--checkpoint none.pth: no such file": ["--checkpoint", "none.pth"],
        "--config needs --checkpoint": ["--config", CONFIG],
        "--voxel 0.0": ["--voxel", "0"],
        "--model-kwargs classes: not KEY=VALUE": ["--model-kwargs", "classes"],
        "--cfg-options goes with": ["--cfg-options", "a=1"],
        "--model nothing": ["--model", "nothing"],
        "takes no voxels": ["--model", "vit_tiny_patch16_224"],
        "--device nowhere": ["--device", "nowhere"],
        "--model swin3d_s_unet: ": ["--checkpoint", str(other), *KWARGS],
    }
    for words, arguments in cases.items():
        assert predict_scan.main([*scan, *arguments]) == 2, words
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
    assert not list(tmp_path.glob("seen*"))


def test_large_coordinates_lose_no_point(room):
    """UTM: to float32 first, a third of the voxels would be left."""
    from mmengine.dataset import Compose

    from visionpe.detection.clouds.scan import voxels_of
    from visionpe.viewing.clouds.cloud import Cloud

    steps = Compose([{"type": "VoxelizeCloud", "size": 0.1, "keep": "first"}, {"type": "PackCloud", "normals": False}])
    near = {**room, "points": room["points"].astype(np.float64)}
    far = {**near, "points": near["points"] + np.array([500_000.25, 5_400_000.5, 300.125])}
    voxels, inverse = voxels_of(Cloud(**near), steps)
    others, again = voxels_of(Cloud(**far), steps)
    assert len(voxels) == len(others)
    assert torch.equal(inverse, again)
    torch.testing.assert_close(voxels.features, others.features, atol=1e-3, rtol=0)
