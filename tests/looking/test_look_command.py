"""`visionpe look`: what it writes of a picture and of a folder, and what it refuses."""

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import visionpe
from visionpe.cli.look import main
from visionpe.looking.run import read_token
from visionpe.looking.views import Normalisation, cells, look, place
from visionpe.utils.errors import InputError
from visionpe.viewing.attention import attention_layers

SMALL = ["img_size=32", "patch_size=8", "embed_dim=24", "depth=3", "num_heads=2", "num_classes=0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight photographs of noise and stripes, and one beside them that is wide."""
    out, draws = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for i in range(8):
        Image.fromarray(draws.integers(0, 255, (40, 40 + 8 * (i % 2), 3), dtype=np.uint8)).save(out / f"{i}.png")
    return out


@pytest.fixture(scope="module")
def picture(folder):
    return folder / "1.png"


def ran(*args):
    return main([str(arg) for arg in args])


def test_a_picture(picture, tmp_path, capsys):
    model = ["--model", "ape_vit_ti", "--model-kwargs", *SMALL]
    assert ran(picture, *model, "--size", "32", "64x48", "--policy", "default", "nearest", "--out", tmp_path) == 0
    said = capsys.readouterr().out
    assert "random weights" in said
    for name in ("look.html", "look.json", "features.png", "attention.png", "reach.png"):
        assert name in said
        assert (tmp_path / name).stat().st_size > 1000
    told = json.loads((tmp_path / "look.json").read_text())
    assert told["model"] == "ape_vit_ti"
    assert [(v["height"], v["width"], v["policy"]) for v in told["views"]] == [
        (32, 32, "default"),
        (32, 32, "nearest"),
        (64, 48, "default"),
        (64, 48, "nearest"),
    ]
    assert [(f["rows"], f["columns"]) for f in told["views"][3]["features"]] == [(8, 6)] * 3
    assert np.shape(told["views"][0]["attention"]["distance"]) == (3, 2)
    html = (tmp_path / "look.html").read_text()
    assert "http" not in html.replace("http://www.w3.org", "")


def test_numbers_are_those_of_the_functions(picture, tmp_path):
    model = ["--model", "rope_vit_ti", "--model-kwargs", *SMALL, "--seed", 3]
    assert ran(picture, *model, "--size", "32", "--layers", 0, 2, "--out", tmp_path) == 0
    told = json.loads((tmp_path / "look.json").read_text())["views"][0]
    assert [f["layer"] for f in told["features"]] == [0, 2]
    torch.manual_seed(3)
    kwargs = {key: int(value) for key, value in (each.split("=") for each in SMALL)}
    built = timm.create_model("rope_vit_ti", **kwargs).eval()
    pixels = torch.from_numpy(np.array(Image.open(picture))).movedim(-1, 0)[None, :, :, 4:44] / 255
    resized = torch.nn.functional.interpolate(pixels, (32, 32), mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (torch.tensor(built.default_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    layers = attention_layers(built, (resized - mean) / std)
    for layer, distances in zip(layers, told["attention"]["distance"]):
        np.testing.assert_allclose(np.array(distances), layer.spread()[1] / 4, atol=1e-4)


def test_models_without_attention_to_the_map(picture, tmp_path, capsys):
    swin = ["img_size=32", "patch_size=2", "window_size=4", "embed_dim=8", "depths=(1,1)", "num_heads=(1,2)"]
    assert ran(picture, "--model", "swin_t", "--model-kwargs", *swin, "--size", "1x", "--out", tmp_path / "swin") == 0
    assert {each.name for each in (tmp_path / "swin").iterdir()} == {
        "look.html",
        "look.json",
        "features.png",
        "reach.png",
    }
    assert ran(picture, "--model", "resnet10t", "--size", "64", "--out", tmp_path / "resnet") == 0
    assert {each.name for each in (tmp_path / "resnet").iterdir()} == {"look.html", "look.json", "features.png"}
    assert "no attention is shown" in capsys.readouterr().out
    assert json.loads((tmp_path / "resnet/look.json").read_text())["views"][0]["attention"] is None


def test_a_folder(folder, tmp_path, capsys):
    model = ["--model", "none_vit_ti", "--model-kwargs", *SMALL, "pos_encoding=ape"]
    assert ran(*model, "--images", folder, "--size", "1x", "2x", "--out", tmp_path / "out") == 0
    told = json.loads((tmp_path / "out/places.json").read_text())
    assert told["pictures"] == 8
    assert [(row["height"], row["layer"]) for row in told["rows"]] == [
        (size, layer) for size in (32, 64) for layer in ("pixels", "0", "1", "2")
    ]
    pixels = told["rows"][0]
    assert pixels["moved_row"] == pixels["row"]
    assert abs(pixels["share"]) < 0.1  # noise
    assert all(row["moved_row"] == row["row"] for row in told["rows"][:4])
    assert all(row["moved_row"] != row["row"] for row in told["rows"][4:])  # by the probe of the first size
    for name in ("places.png", "means.png"):
        assert (tmp_path / "out" / name).stat().st_size > 5000
    assert "same place" in capsys.readouterr().out


def test_a_table_is_found(folder, tmp_path):
    """A table that is larger than all else makes features those of the place."""
    shares = {}
    for strength in (0.0, 30.0):
        model = timm.create_model("ape_vit_ti", img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=2)
        with torch.no_grad():
            for table in model.pos_encoding.parameters():
                table.normal_(std=strength)
        file = tmp_path / f"{strength}.pth"
        torch.save(model.state_dict(), file)
        kwargs = [*(each for each in SMALL if "depth" not in each and "classes" not in each), "depth=1"]
        out = tmp_path / f"out{strength}"
        args = ["--model", "ape_vit_ti", "--model-kwargs", *kwargs, "--checkpoint", file, "--size", "1x", "--out", out]
        assert ran("--images", folder, *args) == 0
        shares[strength] = json.loads((out / "places.json").read_text())["rows"][1]
    assert shares[0.0]["share"] < 0.1
    assert shares[30.0]["share"] > 0.95
    assert shares[30.0]["same_place"] > 0.95
    assert shares[30.0]["row"] < 0.5 * shares[0.0]["row"]


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ([], "nothing to look at"),
        (["PICTURE"], "--model"),
        (["PICTURE", "--model", "rope_vit_tii"], "--model rope_vit_tii"),
        (["nowhere.png", "--model", "rope_vit_ti"], "nowhere.png"),
        (["PICTURE", "--model", "rope_vit_ti", "--token", "2,0.5"], "--token 2,0.5"),
        (
            [
                "PICTURE",
                "--model",
                "rope_vit_ti",
                "--token",
                "cls",
                "--model-kwargs",
                "class_token=False",
                "global_pool=avg",
                *SMALL,
            ],
            "--token cls",
        ),
        (["PICTURE", "--model", "rope_vit_ti", "--size", "33", "--model-kwargs", *SMALL], "--size 33"),
        (["PICTURE", "--model", "rope_vit_ti", "--policy", "bicubik", "--model-kwargs", *SMALL], "--policy bicubik"),
        (["PICTURE", "--model", "rope_vit_ti", "--layers", "7", "--model-kwargs", *SMALL], "7"),
        (["--model", "rope_vit_ti", "--images", "EMPTY"], "--images"),
        (["PICTURE", "--model", "rope_vit_ti", "--limit", "0"], "--limit"),
    ],
)
def test_what_cannot_be_looked_at(picture, tmp_path, capsys, args, named):
    (tmp_path / "empty").mkdir()
    places = {"PICTURE": picture, "EMPTY": tmp_path / "empty"}
    assert ran(*(places.get(arg, arg) for arg in args), "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert named in said
    assert "Traceback" not in said
    assert not list((tmp_path / "out").glob("*"))


def test_results_among_the_pictures_are_refused(folder, capsys):
    assert ran("--images", folder, "--model", "rope_vit_ti", "--out", folder / "out") == 2
    assert "--out" in capsys.readouterr().err


def test_tokens():
    assert read_token("cls") == "cls"
    assert read_token("0,1") == (0, 1)
    for text in ("", "0.5", "a,b", "0.5,1.5", "-0.1,0", "nan,0"):
        with pytest.raises(InputError, match="--token"):
            read_token(text)
    assert place((0.0, 1.0), (6, 8)) == (0, 7)
    assert place((0.5, 0.49), (6, 8)) == (3, 3)


def test_cells_of_a_small_map_are_its_patches():
    model = timm.create_model("rope_vit_ti", img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=2).eval()
    layer = attention_layers(model, torch.rand(1, 3, 32, 40))[0]
    kept, queries, keys = cells(layer)
    assert queries == keys == (4, 5)
    assert kept.shape == (2, 21, 20)
    for number, token in ((0, 0), (1, (0, 0)), (20, (3, 4))):
        row = layer.of(token)[0][0].flatten(1)
        np.testing.assert_allclose(kept[:, number] / 255, row / row.amax(1, keepdim=True), atol=0.003)


def test_policies_are_set():
    model = timm.create_model("ape_vit_ti", img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=2).eval()
    picture = torch.rand(1, 3, 64, 64)
    plain = Normalisation((0.5,) * 3, (0.5,) * 3)
    views = [look(model, picture, plain, policy, []) for policy in ("nearest", "default", "nearest")]
    assert views[0].maps[0].equal(views[2].maps[0])
    assert not views[0].maps[0].equal(views[1].maps[0])
    visionpe.set_policy(model, "nearest")
    expected = model.forward_intermediates((picture - 0.5) / 0.5, norm=True, intermediates_only=True)[0]
    torch.testing.assert_close(views[0].maps[0], expected)
