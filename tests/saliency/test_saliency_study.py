"""The study from end to end on a tiny network and generated pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from saliency_pictures import write_backgrounds, write_objects
from tiny_onnx import PATCH, write_tiny

pytest.importorskip("onnx", reason="needs the `onnx` extra")
pytest.importorskip("matplotlib", reason="needs the `plot` extra")

from visionpe import PolicyChoice, policies, set_policy
from visionpe.cli.saliency import main
from visionpe.saliency import measuring, pictures, rows, study
from visionpe.saliency.cutouts import CutOut, make_cutouts
from visionpe.saliency.measuring import CellPredictions, intersection_over_union, measure
from visionpe.saliency.model import SaliencyModel, load_saliency_model

CPU = torch.device("cpu")
SIZES = (8 * PATCH, 16 * PATCH)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """All sizes a seventh of what they are, as the patch of the tiny network nearly is."""
    monkeypatch.setattr(measuring, "FINE_TUNED", (32, 32))
    monkeypatch.setattr(study, "FINE_TUNED", (32, 32))
    monkeypatch.setattr(rows, "FINE_TUNED", (32, 32))
    monkeypatch.setattr(pictures, "SHOWN", (16, 32))


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    objects, scenes = write_objects(tmp_path / "objects"), write_backgrounds(tmp_path / "scenes")
    Image.fromarray(np.full((40, 50, 3), 128, np.uint8)).save(tmp_path / "photograph.png")
    given: dict[str, Any] = {
        "--objects": [objects],
        "--backgrounds": [scenes],
        "--checkpoint": [write_tiny(tmp_path / "tiny.onnx")],
        "--picture": [tmp_path / "photograph.png"],
        "--images": [4],
        "--auto-images": [3],
        "--resolutions": [16, 32, 64],
        "--limit-from": ["2x=3"],
        "--device": ["cpu"],
        "--out": [tmp_path / "out"],
    }
    return [str(word) for flag, values in given.items() for word in (flag, *values)]


def test_everything_is_written(small: None, arguments: list[str], tmp_path: Path, capsys: Any) -> None:
    assert main(arguments) == 0
    out = tmp_path / "out"
    results = json.loads((out / "results.json").read_text())
    of = {(row["policy"], row["height"]): row for row in results["rows"]}
    names = {name for name, _ in of}
    assert {"default", "downscale", "auto", "bilinear", "fourier", "temperature", "patch_resize"} <= names
    assert "bicubic" not in names  # the default
    assert {row["status"] for row in of.values()} == {"ok"}
    assert {size: of["default", size]["n"] for size in (16, 32, 64)} == {16: 4, 32: 4, 64: 3}
    assert of["default", 32]["ious"] == of["downscale", 32]["ious"] == of["auto", 32]["ious"]
    assert len(results["provenance"]["sha256"]) == 64
    assert len(results["auto"]) == 2
    text = (out / "results.md").read_text()
    assert "| `vit_s_focus` | downscale |" in text
    assert "95% bootstrap intervals over 3 to 4 pictures" in text
    assert len((out / "results.csv").read_text().splitlines()) == 1 + len(of)
    for name in ("resolution.png", "maps.png", "cutouts.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 100
    assert not list(out.glob(".*.partial"))
    assert "IoU, %" in capsys.readouterr().out


def test_finished_rows_are_not_measured_again(
    small: None, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "out" / "results.json"
    assert main([*arguments, "--policy", "bicubic"]) == 0
    before = json.loads(results.read_text())["rows"]
    assert {row["policy"] for row in before} == {"default", "downscale"}  # bicubic is the default
    monkeypatch.setattr(rows, "measure", lambda *_, **__: pytest.fail("measured again"))
    assert main([*arguments, "--policy", "default"]) == 0
    assert json.loads(results.read_text())["rows"] == before


def test_auto_takes_the_choice_of_the_nearest_size_where_it_may_not_choose(
    small: None, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def choose(model: Any, shown: Any, size: tuple[int, int], **_: Any) -> PolicyChoice:
        asked.append((size, [each.name for each in shown]))
        return PolicyChoice("bilinear", 0.1, 0.9, True)

    monkeypatch.setattr(rows, "choose", choose)
    assert main([*arguments, "--auto-up-to", "1.5", "--policy", "auto"]) == 0
    lines = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    auto = {line["height"]: line for line in lines if line["policy"] == "auto"}
    assert {size: line["chosen"] for size, line in auto.items()} == {16: "bilinear", 32: "default", 64: "bilinear"}
    assert [auto[size]["chosen_by"] for size in (16, 64)] == ["its pictures", "the nearest size"]
    ((size, names),) = asked
    assert size == (16, 16)
    # Pictures that choose are not measured.
    folders = tmp_path / "objects", tmp_path / "scenes"
    every = [each.name for each in make_cutouts(*folders, 7)]
    assert names == every[4:]


BAD = {
    ("--policy", "yarn"): "--policy yarn: policy='yarn' applies to no encoding",
    ("--resolutions", "30"): "--resolutions 30: 30x30 is no multiple of the 4x4 patch of vit_s_focus",
    ("--images", "0"): "--images 0: must be at least 1",
    ("--images", "40"): "objects before white; 43 are needed",
    ("--limit-from", "3"): "--limit-from 3: not FACTORx=N",
    ("--checkpoint", "none.onnx"): "ONNX file 'none.onnx' does not exist",
    ("--seed", "-1"): "--seed -1: must be 0",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_one_line(small: None, arguments: list[str], words: tuple[str, ...], capsys: Any) -> None:
    assert main([*arguments, *words]) == 2
    message = capsys.readouterr().err
    assert BAD[words] in message
    assert message.count("\n") == 1


def test_one_folder_alone(capsys: Any, tmp_path: Path) -> None:
    assert main(["--objects", str(tmp_path)]) == 2
    assert "--objects and --backgrounds: one of them given" in capsys.readouterr().err


class Known(SaliencyModel):
    """Says that what is red stands out."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.seen: list[tuple[int, ...]] = []

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(images.shape[-2:]))
        return 50 * images[:, :1] * 0.229 + 50 * (0.485 - 0.5)  # red above a half


def red_square(side: int = 64) -> CutOut:
    image, mask = torch.zeros(3, side, side), torch.zeros(side, side, dtype=torch.bool)
    image[0, 16:48, 8:40], mask[16:48, 8:40] = 1.0, True
    return CutOut("square", image, mask)


def test_a_perfect_model_has_all(small: None) -> None:
    row = measure(Known(), [red_square()] * 3, (64, 64), device=CPU)
    assert row["n"] == 3
    assert row["iou"] == pytest.approx(100)
    assert row["mae"] == pytest.approx(0, abs=0.1)
    assert measure(Known(), [red_square()], (128, 128), device=CPU)["iou"] > 95


def test_downscale_shows_the_model_its_own_size(small: None) -> None:
    model = Known()
    measure(model, [red_square()], (64, 64), device=CPU, downscale=True)
    assert model.seen == [(32, 32)]


def test_intersection_over_union() -> None:
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[0, :2], masks[1, :2] = True, True
    maps = torch.zeros(3, 4, 4)
    maps[0, 1:3] = 1.0  # one row of three
    maps[1, :2, :2] = 0.51  # half
    assert intersection_over_union(maps, masks).tolist() == pytest.approx([1 / 3, 0.5, 1.0])


def test_summary_compares_the_same_pictures() -> None:
    head = {"height": 32, "width": 32, "status": "ok"}
    ious = np.linspace(0.2, 0.8, 20)
    lines = [
        head | {"policy": "downscale", "ious": ious.tolist()},
        head | {"policy": "better", "ious": (ious + 0.02).tolist()},
        head | {"policy": "worse", "ious": (ious - 0.02).tolist()},
    ]
    downscale, better, worse = study.summarise(lines)
    assert "versus_downscale" not in downscale
    # Pictures differ by far more than two points, but on each of them it is two.
    assert better["iou_high"] - better["iou_low"] > 10
    assert [better[key] for key in ("versus_downscale", "versus_low", "versus_high")] == pytest.approx([2, 2, 2])
    assert not better["loses"]
    assert worse["loses"]


def test_summary_compares_sizes_on_the_pictures_that_both_have(small: None) -> None:
    ious = np.linspace(0.2, 0.8, 20)
    # The first five are the hard ones: their mean is below that of all, but each of them gains three points.
    lines = [
        {"policy": "default", "height": 32, "width": 32, "status": "ok", "ious": ious.tolist()},
        {"policy": "default", "height": 64, "width": 64, "status": "ok", "ious": (ious[:5] + 0.03).tolist()},
    ]
    native, large = study.summarise(lines)
    assert native["gain"] == native["gain_low"] == native["gain_high"] == 0
    assert [large[key] for key in ("gain", "gain_low", "gain_high")] == pytest.approx([3, 3, 3])


def test_choosing_leaves_the_model_as_it_was(small: None, tmp_path: Path) -> None:
    model = load_saliency_model(write_tiny(tmp_path / "tiny.onnx"))
    set_policy(model, "nearest")
    before = model.state_dict()
    choice = measuring.choose(model, [red_square()] * 2, (64, 64), device=CPU, seed=0)
    assert policies(model)[0] == "nearest"
    assert choice.policy in choice.scores
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_cells_are_predictions_of_two_classes() -> None:
    logits = CellPredictions(Known())(measuring.normalised(red_square().image[None]))
    assert logits.shape == (measuring.CELLS**2, 2)
    said = logits.argmax(1).unflatten(0, (measuring.CELLS, measuring.CELLS))
    assert torch.equal(said.bool(), red_square().mask[::4, ::4])


def test_another_encoding_comes_with_weights(arguments: list[str], tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "cut.safetensors").write_bytes(b"1234")
    cases = {
        ("--pos-encoding", "alibi"): "--pos-encoding and --backbone: one of them given",
        ("--pos-encoding", "alibi", "--backbone", str(tmp_path / "none")): "no such file",
        ("--pos-encoding", "alibi", "--backbone", str(tmp_path / "cut.safetensors")): "--pos-encoding alibi",
        ("--pos-encoding", "alibo", "--backbone", str(tmp_path / "cut.safetensors")): "did you mean",
    }
    for words, message in cases.items():
        assert main([*arguments, *words]) == 2
        assert message in capsys.readouterr().err


def test_another_encoding_is_measured(
    small: None, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the decoder of the file, and kept apart from the rows of the table."""
    asked = []

    def swapped(pos_encoding: str, weights: Path) -> Any:
        asked.append((pos_encoding, weights))
        table = load_saliency_model(tmp_path / "tiny.onnx").backbone
        sizes = {"embed_dim": table.embed_dim, "depth": len(table.blocks), "num_heads": table.blocks[0].attn.num_heads}
        return timm.create_model("dinov2_vit_s", img_size=32, patch_size=PATCH, pos_encoding=pos_encoding, **sizes)

    monkeypatch.setattr(study, "swapped_backbone", swapped)
    (tmp_path / "alibi.safetensors").write_bytes(b"1234")
    assert main(arguments) == 0
    before = {path.name for path in (tmp_path / "out/rows").iterdir()}
    assert main([*arguments, "--pos-encoding", "alibi", "--backbone", str(tmp_path / "alibi.safetensors")]) == 0
    assert asked == [("alibi", tmp_path / "alibi.safetensors")]
    policies_of = {row["policy"] for row in json.loads((tmp_path / "out/results.json").read_text())["rows"]}
    assert "decay" in policies_of
    assert before < {path.name for path in (tmp_path / "out/rows").iterdir()}
