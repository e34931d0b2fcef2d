"""The command line of ``tools/resolution_scaling.py``, end to end on tiny random models."""

from __future__ import annotations

import csv
import hashlib
import json
import shlex

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

import visionpe
from visionpe.cli import scaling as resolution_scaling
from visionpe.scaling import sweep as sweep_module

KWARGS = {
    "img_size": 24,
    "patch_size": 4,
    "in_chans": 1,
    "num_classes": 10,
    "embed_dim": 16,
    "depth": 1,
    "num_heads": 2,
}
PHOTO = (
    "--model vit_tiny_patch16_224 "
    "--model-kwargs num_classes=2 img_size=32 patch_size=8 embed_dim=16 depth=1 num_heads=2"
)
SMALL = "--limit 20 --batch-size 10"
TINY = "--model-kwargs " + " ".join(f"{key}={value}" for key, value in KWARGS.items())


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run(tmp_path, capsys):
    """Run the program with a command line; returns the exit code, stdout and stderr."""

    def call(command, out=tmp_path / "out"):
        code = resolution_scaling.main([*shlex.split(command), "--out", str(out)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    call.out = tmp_path / "out"
    return call


def results(run):
    return json.loads((run.out / "results.json").read_text())


def write_run(directory, *, seed=0, model="rope_vit_ti", **changes):
    """A trained run as tools/train.py leaves it, with random weights."""
    directory.mkdir(parents=True)
    torch.manual_seed(seed)
    save_file(timm.create_model(model, **KWARGS).state_dict(), directory / "model.safetensors")
    description = {
        "model": model,
        "kwargs": KWARGS,
        "img_size": 24,
        "data": "digits",
        "seed": seed,
        "mean": [79.3],
        "std": [91.0],
    }
    (directory / "model.json").write_text(json.dumps(description | changes))
    return directory


def fake_images(root, classes=2, images=3, size=(40, 30)):
    for label in range(classes):
        for index in range(images):
            path = root / f"class{label}" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size, (80 * label, 20 * index, 100)).save(path)
    return root


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


def test_second_run_repeats_nothing(run, monkeypatch):
    calls = []
    original = sweep_module.measure
    monkeypatch.setattr(sweep_module, "measure", lambda *a, **k: calls.append(1) or original(*a, **k))
    command = f"--model ape_vit_ti {TINY} {SMALL} --resolutions 1x 2x --protocol object"
    run(command)
    first = results(run)["rows"]
    assert len(calls) == 4
    _, out, _ = run(command)
    assert len(calls) == 4
    assert results(run)["rows"] == first
    assert "4 rows, 4 of them already finished" in out
    run(f"{command} --fresh")
    assert len(calls) == 8
    run(f"{command} --seed 1")  # other weights, images and places
    assert len(calls) == 12
    run(f"{command} --limit 19")
    assert len(calls) == 16


def test_changed_image_is_measured_again(run, tmp_path):
    folder = fake_images(tmp_path / "data")
    command = f"{PHOTO} --data {folder} --resolutions 32 --protocol object"
    assert "2 rows, 0 of them already finished" in run(command)[1]
    assert "2 rows, 2 of them already finished" in run(command)[1]
    Image.new("RGB", (50, 50)).save(folder / "class0" / "0.png")
    assert "2 rows, 0 of them already finished" in run(command)[1]


def test_interrupted_run_goes_on(run, monkeypatch, capsys):
    original, calls = sweep_module.measure, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(sweep_module, "measure", interrupted)
    command = f"--model ape_vit_ti {TINY} {SMALL} --resolutions 1x 2x --protocol object"
    code, _, err = run(command)
    assert code == 130
    assert "goes on" in err
    assert len(list((run.out / "rows").iterdir())) == 2
    code, _, _ = run(command)
    assert code == 0
    assert len(calls) == 3 + 2


def test_out_of_memory_is_recorded_and_the_rest_goes_on(run, monkeypatch):
    original, large = sweep_module.measure, []

    def greedy(model, batches, **kwargs):
        batches = list(batches)
        if batches[0][0].shape[-1] == 48 and kwargs["downscale_to"] is None:
            large.append(1)
            torch.empty(2**50)  # the real message of the CPU allocator
        return original(model, batches, **kwargs)

    monkeypatch.setattr(sweep_module, "measure", greedy)
    command = f"--model none_vit_ti {TINY} {SMALL} --resolutions 1x 2x 3x --protocol object"
    code, out, _ = run(command)
    assert code == 0
    status = {(row["policy"], row["height"]): row["status"] for row in results(run)["rows"]}
    assert status.pop(("default", 48)) == "out of memory"
    assert len(status) == 5
    assert set(status.values()) == {"ok"}
    assert "none_vit_ti at 48x48: out of memory" in out
    run(command)
    assert len(large) == 2  # tried again: memory may have become free


def test_model_that_refuses_a_size_is_recorded(run):
    kwargs = "num_classes=10 in_chans=1 img_size=24 patch_size=4 embed_dim=16 depth=1 num_heads=2"
    code, _, _ = run(f"--model cait_xxs24_224 --model-kwargs {kwargs} {SMALL} --resolutions 1x 2x --protocol object")
    assert code == 0
    status = {(row["policy"], row["height"]): row for row in results(run)["rows"]}
    assert status["default", 24]["status"] == "ok"
    assert status["default", 48]["status"] == "failed"
    assert "48" in status["default", 48]["reason"]


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


def test_policies_that_exclude_each_other_fail_alone(run, monkeypatch):
    def refuse(model, policy):
        if policy == "interpolate":
            raise ValueError("cannot")

    monkeypatch.setattr(sweep_module.visionpe, "set_policy", refuse)
    command = f"--model rope_vit_ti {TINY} {SMALL} --resolutions 2x --protocol object --controls none"
    assert run(f"{command} --policy default interpolate extrapolate")[0] == 0
    status = {row["policy"]: (row["status"], row["reason"]) for row in results(run)["rows"]}
    assert status == {"default": ("ok", ""), "interpolate": ("failed", "cannot"), "extrapolate": ("ok", "")}


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


def test_corrupt_image(run, tmp_path):
    folder = fake_images(tmp_path / "data")
    broken = folder / "class1" / "1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    command = f"{PHOTO} --data {folder} --resolutions 32 --protocol object --batch-size 1"
    code, _, err = run(command)
    assert code == 2
    assert_one_line(err, str(broken), "--skip-corrupt")
    code, out, _ = run(f"{command} --skip-corrupt")
    assert code == 0
    assert {row["n"] for row in results(run)["rows"]} == {5}
    assert "1 corrupt images left out" in out
    assert str(broken) in out.replace("\n", "")


def assert_one_line(err, *words):
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", ["--model", "--runs"]),
        ("--model rope_vit_bb", ["--model rope_vit_bb", "did you mean", "rope_vit_b"]),
        ("--model qqqqqqqqqq", ["qqqqqqqqqq", "timm.list_models()"]),
        (f"--model rope_vit_ti {TINY} --resolutions 50", ["50x50", "4x4 patch", "rope_vit_ti", "48x48 or 52x52"]),
        (f"--model rope_vit_ti {TINY} --resolutions 48x2", ["48x2", "48x4"]),
        (f"--model rope_vit_ti {TINY} --resolutions big", ["--resolutions big", "HEIGHTxWIDTH"]),
        (f"--model rope_vit_ti {TINY} --policy bicubik", ["--policy bicubik", "extrapolate, interpolate"]),
        (f"--model none_vit_ti {TINY} --policy bicubic", ["--policy bicubic", "for none_vit_ti: default"]),
        ("--model rope_vit_ti --checkpoint /no/such.safetensors", ["--checkpoint /no/such.safetensors", "rope_vit_ti"]),
        ("--model rope_vit_ti --checkpoint none --checkpoint none", ["--checkpoint", "2 given for 1 --model"]),
        ("--model rope_vit_ti", ["10 classes", "num_classes=1000"]),
        ("--model rope_vit_ti --model-kwargs depth", ["--model-kwargs depth", "KEY=VALUE"]),
        ("--model rope_vit_ti --model-kwargs bogus=1", ["--model rope_vit_ti", "bogus"]),
        ("--model rope_vit_ti --data /no/such/folder", ["--data /no/such/folder", "digits", "mnist"]),
        (f"--model rope_vit_ti {TINY} --batch-size 0", ["--batch-size 0", "at least 1"]),
        (f"--model rope_vit_ti {TINY} --diagnostics -1", ["--diagnostics -1", "at least 0"]),
        (f"--model rope_vit_ti {TINY} --crop-pct 2", ["--crop-pct 2", "at most 1"]),
        (f"--model rope_vit_ti {TINY} --controls none tiling", ["--controls none tiling", "alone"]),
        (f"--model rope_vit_ti {TINY} --launcher pytorch", ["--launcher pytorch", "torchrun"]),
        (f"--model rope_vit_ti {TINY} --limit 0", ["--limit 0", "at least 1"]),
        (f"--model rope_vit_ti {TINY} --device cuda:99", ["--device cuda:99"]),
        (f"--model rope_vit_ti {TINY} --protocol dream", ["--protocol", "dream", "object", "canvas"]),
        ("--runs /no/such/runs", ["--runs /no/such/runs", "model.json"]),
    ],
)
def test_bad_input_is_one_clear_line(run, command, words):
    code, _, err = run(command)
    assert code == 2
    assert_one_line(err, *words)


def test_bad_folders(run, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    code, _, err = run(f"--model rope_vit_ti --data {empty}")
    assert code == 2
    assert_one_line(err, str(empty), "empty of class folders", "<class>/<image>")
    (empty / "cat").mkdir()
    code, _, err = run(f"--model rope_vit_ti --data {empty}")
    assert code == 2
    assert_one_line(err, str(empty), "no images")
    folder = fake_images(tmp_path / "data", classes=3)
    code, _, err = run(f"--model rope_vit_ti --data {folder}")
    assert code == 2
    assert_one_line(err, "3 classes", "num_classes=1000")


def test_bad_runs(run, tmp_path):
    directory = write_run(tmp_path / "runs" / "a", model="rope_vit_ti")
    other = timm.create_model("rope_vit_ti", **(KWARGS | {"embed_dim": 32}))
    save_file(other.state_dict(), directory / "model.safetensors")
    code, _, err = run(f"--runs {directory} {SMALL}")
    assert code == 2
    assert_one_line(err, "model.safetensors", "does not fit rope_vit_ti")
    (directory / "model.safetensors").unlink()
    code, _, err = run(f"--runs {directory}")
    assert code == 2
    assert_one_line(err, "model.safetensors", "missing")
    (directory / "model.json").write_text("{")
    code, _, err = run(f"--runs {directory}")
    assert code == 2
    assert_one_line(err, "model.json")


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        resolution_scaling.main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "examples:" in out
    assert "HEIGHTxWIDTH" in out
