"""What ``visionpe scaling`` cannot use is refused in one clear line."""

from __future__ import annotations

import pytest
import timm
from safetensors.torch import save_file
from scaling_runs import KWARGS, SMALL, TINY, assert_one_line, fake_images, program, write_run

from visionpe.cli import scaling as resolution_scaling


@pytest.fixture
def run(tmp_path, capsys):
    with program(tmp_path, capsys) as call:
        yield call


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
        (f"--model rope_vit_ti {TINY} --seed -1", ["--seed -1", "0 to 4294967295"]),
        (f"--model rope_vit_ti {TINY} --crop 2x", ["--crop 2x", "--config"]),
        ("--model swin3d_s", ["--model swin3d_s", "models of images"]),
        (f"--model rope_vit_ti {TINY} --limit 0", ["--limit 0", "at least 1"]),
        (f"--model rope_vit_ti {TINY} --device cuda:99", ["--device cuda:99"]),
        (f"--model rope_vit_ti {TINY} --protocol dream", ["--protocol", "dream", "object", "canvas"]),
        ("--runs /no/such/runs", ["--runs /no/such/runs", "model.json"]),
    ],
)
def test_bad_input_is_one_clear_line(run, command, words, tmp_path):
    code, _, err = run(command)
    assert code == 2
    assert_one_line(err, *words)
    assert not list(tmp_path.iterdir())


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
