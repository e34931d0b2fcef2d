"""``visionpe scaling`` from end to end on tiny random models: what it measures and writes."""

from __future__ import annotations

import csv
import hashlib

import pytest
import timm
import torch
from scaling_runs import KWARGS, PHOTO, SMALL, TINY, fake_images, program, results, write_run

import visionpe
from visionpe.scaling import sweep as sweep_module


@pytest.fixture
def run(tmp_path, capsys):
    with program(tmp_path, capsys) as call:
        yield call


def test_table_csv_json_and_plot(run):
    code, out, err = run(
        f"--model rope_vit_ti {TINY} {SMALL} --resolutions 1x 48x24 --policy interpolate yarn+temperature "
        "--controls downscale tiling --diagnostics 4"
    )
    assert (code, err) == (0, "")
    rows = list(csv.DictReader((run.out / "results.csv").open()))
    policies = {"downscale", "tiling", "interpolate", "yarn+temperature"}
    assert {row["policy"] for row in rows} == policies
    assert len(rows) == len(policies) * 2 * 2  # protocols, resolutions
    for row in rows:
        assert row["status"] == "ok"
        assert int(row["n"]) == 20
        assert float(row["top1_low"]) <= float(row["top1"]) <= float(row["top1_high"])
        assert float(row["top5"]) >= float(row["top1"])
        assert float(row["images_per_s"]) > 0
        assert int(row["flops"]) > 0
        assert 0 <= float(row["agreement"]) <= 100
        assert float(row["entropy"]) > 0
        assert float(row["distance"]) > 0
        assert row["paper"] == ""
    sizes = {(row["policy"], row["height"], row["width"]): row for row in rows}
    prefix = 1  # the class token
    assert int(sizes["interpolate", "48", "24"]["tokens"]) == 12 * 6 + prefix
    assert int(sizes["downscale", "48", "24"]["tokens"]) == 6 * 6 + prefix
    assert sizes["downscale", "48", "24"]["flops"] == sizes["interpolate", "24", "24"]["flops"]
    assert int(sizes["tiling", "48", "24"]["tokens"]) == 2 * (6 * 6 + prefix)
    assert int(sizes["tiling", "48", "24"]["flops"]) == 2 * int(sizes["downscale", "48", "24"]["flops"])
    assert {sizes[policy, "24", "24"]["agreement"] for policy in policies} == {"100.0"}
    assert float(sizes["interpolate", "48", "24"]["entropy_change"]) > 0
    assert float(sizes["tiling", "24", "24"]["distance_change"]) == 0
    assert float(sizes["interpolate", "48", "24"]["factor"]) == pytest.approx(2**0.5)
    assert (run.out / "resolution.png").read_bytes().startswith(b"\x89PNG")
    assert "Plotly.newPlot" in (run.out / "resolution.html").read_text()
    assert not {"predicted", "correct"} & results(run)["rows"][0].keys()
    for word in (
        "object protocol",
        "canvas protocol",
        "downscale",
        "tiling",
        "agree %",
        "48x24",
        "Wilson",
        "random weights",
    ):
        assert word in out


def test_provenance(run, tmp_path):
    directory = write_run(tmp_path / "runs" / "a", seed=3)
    code, _, err = run(f"--runs {directory} {SMALL} --resolutions 1x --protocol object --seed 7")
    assert (code, err) == (0, "")
    source = results(run)["provenance"]
    assert source["versions"]["torch"] == torch.__version__
    assert {"python", "timm", "visionpe"} <= set(source["versions"])
    assert source["seed"] == 7
    assert source["device"] == "cpu"
    assert source["device_name"]
    assert source["arguments"]["resolutions"] == ["1x"]
    (model,) = source["models"]
    weights = (directory / "model.safetensors").read_bytes()
    assert model["sha256"] == hashlib.sha256(weights).hexdigest()
    assert (model["seed"], model["trained_size"], model["patch"]) == (3, [24, 24], [4, 4])


def test_weights_of_the_run_are_used(run, tmp_path):
    directory = write_run(tmp_path / "runs" / "a", seed=5)
    run(f"--runs {directory} --limit 200 --resolutions 1x --protocol object")
    (row,) = [row for row in results(run)["rows"] if row["policy"] == "default"]
    from visionpe.data.digits import load_digits

    images, labels = load_digits("test")
    chosen = sorted(torch.randperm(500, generator=torch.Generator().manual_seed(0))[:200].tolist())
    model = timm.create_model("rope_vit_ti", checkpoint_path=str(directory / "model.safetensors"), **KWARGS).eval()
    with torch.no_grad():
        guess = model((images[chosen].float() - 79.3) / 91.0).argmax(1)
    assert row["top1"] == pytest.approx(100 * guess.eq(labels[chosen]).float().mean().item(), abs=1e-4)


def test_plain_timm_vit_takes_any_size(run):
    code, _, _ = run(f"--model vit_tiny_patch16_224 {TINY} {SMALL} --resolutions 12 36x24 --protocol canvas")
    assert code == 0
    assert {row["status"] for row in results(run)["rows"]} == {"ok"}


def test_seeds_of_one_model_become_one_line(run, tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / "runs" / f"seed{seed}", seed=seed)
    code, out, _ = run(f"--runs {tmp_path / 'runs'} {SMALL} --resolutions 1x --protocol object")
    assert code == 0
    content = results(run)
    assert len(content["rows"]) == 4
    (line,) = [line for line in content["summary"] if line["policy"] == "default"]
    pair = [row["top1"] for row in content["rows"] if row["policy"] == "default"]
    assert line["seeds"] == 2
    assert line["top1"] == pytest.approx(sum(pair) / 2)
    assert "mean over 2 training seeds" in out
    assert "paired bootstrap" in out


def test_policies_apply_where_they_can(run):
    names = "--model none_vit_ti --model ape_vit_ti --model rope_vit_ti"
    command = f"{names} {TINY} {SMALL} --resolutions 2x --protocol object --policy bicubic interpolate"
    code, out, _ = run(command)
    assert code == 0
    chosen = {(row["model"], row["policy"]) for row in results(run)["rows"]} - {
        (name, "downscale") for name in ("none_vit_ti", "ape_vit_ti", "rope_vit_ti")
    }
    assert chosen == {("none_vit_ti", "default"), ("ape_vit_ti", "bicubic"), ("rope_vit_ti", "interpolate")}
    assert "bicubic interpolate does not apply to none_vit_ti: it runs as built" in out.replace("\n", " ")


def test_policy_reaches_the_model(run, monkeypatch):
    in_force, parts = [], []
    original = sweep_module.measure

    def spy(model, *args, **kwargs):
        parts.append([part.policy for part in model.pos_encoding.parts])
        control = "downscale" if kwargs["downscale_to"] else "tiling" if kwargs["tile_to"] else None
        in_force.append((visionpe.policies(model)[0], control))
        return original(model, *args, **kwargs)

    monkeypatch.setattr(sweep_module, "measure", spy)
    command = f"--model rope_vit_ti {TINY} {SMALL} --resolutions 2x --protocol object"
    run(f"{command} --policy interpolate default extrapolate --controls downscale tiling --diagnostics 0")
    as_built = [("extrapolate", None), ("extrapolate", "downscale"), ("extrapolate", "tiling")]
    assert in_force[:3] == as_built
    assert sorted(in_force[3:]) == [("extrapolate", None), ("interpolate", None)]
    parts.clear()
    # A policy leaves alone what does not know it, so each must start from the model as built.
    run(f"{command.replace('rope_vit', 'rope_ape_vit')} --policy bilinear yarn --controls none --diagnostics 0")
    assert sorted(parts) == [["extrapolate", "bilinear"], ["yarn", "bicubic_antialias"]]


def test_folder(run, tmp_path):
    folder = fake_images(tmp_path / "data" / "val")
    code, _, err = run(f"{PHOTO} --data {folder.parent} --resolutions 16 32x48 --batch-size 4")
    assert (code, err) == (0, "")
    rows = results(run)["rows"]
    assert {row["n"] for row in rows} == {6}
    assert {row["top5"] for row in rows} == {100.0}  # two classes
