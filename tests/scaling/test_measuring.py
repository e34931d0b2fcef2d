"""The study as a function: models in hand and by name, in one table, with nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from conftest import randomize

from visionpe.scaling import measure
from visionpe.utils.errors import InputError

TINY = {"img_size": 24, "patch_size": 4, "in_chans": 1, "num_classes": 10}
TINY |= {"embed_dim": 16, "depth": 1, "num_heads": 2}
FEW = {"data": "digits", "limit": 10, "resolutions": ["1x", 48], "protocols": ["object"], "progress": False}


def test_a_model_in_hand_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = randomize(timm.create_model("rope_vit_ti", **TINY)).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    lines = measure([model, "ape_vit_ti"], policies=["default", "interpolate"], model_kwargs=TINY, **FEW)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert {(line["label"], line["policy"]) for line in lines} == {
        *((name, policy) for name in ("rope_vit_ti", "ape_vit_ti") for policy in ("default", "downscale")),
        ("rope_vit_ti", "interpolate"),
    }
    assert {line["height"] for line in lines} == {24, 48}
    assert all(line["n"] == 10 and line["status"] == "ok" for line in lines)
    assert not list(tmp_path.iterdir())


def test_rows_are_those_of_the_weights(tmp_path: Path) -> None:
    """A model in hand is the model of its checkpoint, and finished rows are told apart by the weights."""
    one, other = (randomize(timm.create_model("rope_vit_ti", **TINY), seed) for seed in (1, 2))
    torch.save(one.state_dict(), tmp_path / "one.pth")
    by_name = measure("rope_vit_ti", checkpoint=tmp_path / "one.pth", model_kwargs=TINY, **FEW)
    in_hand = measure(one, out=tmp_path / "out", **FEW)
    assert [line["top1"] for line in in_hand] == [line["top1"] for line in by_name]
    files = {"results.csv", "results.json", "results.md", "resolution.png", "resolution.html", "rows"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == files
    rows = len(list((tmp_path / "out" / "rows").iterdir()))
    measure(one, out=tmp_path / "out", **FEW)
    assert len(list((tmp_path / "out" / "rows").iterdir())) == rows
    measure(other, out=tmp_path / "out", **FEW)
    assert len(list((tmp_path / "out" / "rows").iterdir())) == 2 * rows
    assert json.loads((tmp_path / "out" / "results.json").read_text())["provenance"]["models"][0]["sha256"]


def test_bad_input() -> None:
    with pytest.raises(InputError, match="--model magic: timm knows no such model"):
        measure("magic", **FEW)
    with pytest.raises(InputError, match="--policy magic: applies to none of the models"):
        measure(timm.create_model("rope_vit_ti", **TINY), policies=["magic"], **FEW)
    with pytest.raises(InputError, match="nothing to measure"):
        measure([], **FEW)
    with pytest.raises(InputError, match="--checkpoint: one is given for 2 models"):
        measure(["rope_vit_ti", "ape_vit_ti"], checkpoint="x.pth", model_kwargs=TINY, **FEW)
