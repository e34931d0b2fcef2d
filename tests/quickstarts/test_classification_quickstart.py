"""The classification quickstart: what it refuses, and how it evaluates finished runs."""

from __future__ import annotations

import json

import pytest


def test_quickstart_refuses_what_it_does_not_know(capsys):
    from visionpe.cli import quickstart

    assert quickstart.classification(["--encodings", "magic"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: --encodings magic")
    assert "rope_mixed" in err
    assert err.count("\n") == 1
    assert quickstart.classification(["--seeds", "0"]) == 2
    assert "--seeds 0" in capsys.readouterr().err


def test_quickstart_evaluates_finished_runs(tmp_path, capsys, monkeypatch):
    import timm
    from safetensors.torch import save_file

    import visionpe  # noqa: F401
    from visionpe.cli import quickstart

    kwargs = {"img_size": 24, "patch_size": 4, "in_chans": 1, "num_classes": 10}
    kwargs |= {"embed_dim": 16, "depth": 1, "num_heads": 2}
    for encoding, model in (("none", "none_vit_ti"), ("rope_mixed", "rope_vit_ti")):
        directory = tmp_path / "runs" / "digits" / f"{encoding}_seed0"
        directory.mkdir(parents=True)
        save_file(timm.create_model(model, **kwargs).state_dict(), directory / "model.safetensors")
        description = {"model": model, "kwargs": kwargs, "img_size": 24, "data": "digits", "seed": 0}
        (directory / "model.json").write_text(json.dumps(description))
    given = ["--out", str(tmp_path), "--limit", "10"]
    code = quickstart.classification(
        ["--data", "digits", "--encodings", "none", "rope_mixed", "--policy", "interpolate", *given]
    )
    assert code == 0
    for name in ("results.csv", "results.json", "resolution.png"):
        assert (tmp_path / name).is_file()
    out = capsys.readouterr().out
    assert "2 of 2 trainings already finished" in out
    assert "At the trained size (24x24)" in out
    # The default policies shrink to those that apply: none at all here.
    assert quickstart.classification(["--data", "digits", "--encodings", "none", *given]) == 0
    assert {row["policy"] for row in json.loads((tmp_path / "results.json").read_text())["rows"]} == {
        "default",
        "downscale",
    }


def test_it_is_about_photographs_by_default(monkeypatch, tmp_path):
    from visionpe.cli.quickstart import classification_parser
    from visionpe.quickstarts import classification

    trained = {}

    def train(trainings, console, *, at_once):
        trained.update({training.name: training for training in trainings})
        raise SystemExit(0)

    monkeypatch.setattr(classification, "train", train)
    with pytest.raises(SystemExit):
        classification.run(classification_parser("q").parse_args(["--out", str(tmp_path)]))
    assert list(trained) == ["ape, seed 0", "rope_mixed, seed 0"]
    assert {training.config.parent.name for training in trained.values()} == {"elpv"}
