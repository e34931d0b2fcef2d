"""tools/train.py and tools/test.py as a user runs them."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from visionpe.cli import test

ROOT = Path(__file__).parents[2]
CONFIG = "configs/digits/rope_mixed_vit.py"
TINY = [
    "model.embed_dim=16",
    "model.depth=1",
    "model.num_heads=2",
    "train_cfg.max_epochs=1",
    "train_dataloader.batch_size=8",
    "train_dataloader.dataset.indices=24",
    "val_dataloader.dataset.indices=20",
    "test_dataloader.dataset.indices=20",
    "default_hooks.logger.interval=1",
    "default_hooks.checkpoint.interval=1",
    "train_cfg.val_interval=1",
]


def tool(name):
    # By path: a module called "test" would hide the standard library's.
    spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / f"tools/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def run(*command, **environment):
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=280,
    )


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    result = run(sys.executable, "tools/train.py", CONFIG, "--work-dir", str(folder), "--cfg-options", *TINY)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout + result.stderr


def test_train_writes_weights_and_shows_progress(trained):
    folder, output = trained
    names = {path.name for path in folder.iterdir()}
    assert {"epoch_1.pth", "last_checkpoint", "model.safetensors", "model.json", "rope_mixed_vit.py"} <= names
    lines = [line for line in output.splitlines() if line.strip()]
    assert sum("Epoch(train) [1]" in line and "loss:" in line for line in lines) == 3
    assert sum("Epoch(val) [1]" in line and "accuracy/top1" in line for line in lines) == 1
    # Besides progress, little: what mmengine says about itself goes into the log file alone.
    assert len(lines) < 12, output
    assert "System environment" in next(folder.glob("*/*.log")).read_text()


def test_resume(trained, tmp_path, capfd):
    folder = tmp_path / "run"
    shutil.copytree(trained[0], folder)
    (folder / "last_checkpoint").write_text(str(folder / "epoch_1.pth"))
    options = [option for option in TINY if "max_epochs" not in option] + ["train_cfg.max_epochs=2"]
    tool("train")([CONFIG, "--work-dir", str(folder), "--resume", "--cfg-options", *options])
    output = "".join(capfd.readouterr())
    assert "Epoch(train) [2][3/3]" in output
    assert "Epoch(train) [1]" not in output
    assert (folder / "epoch_2.pth").exists()
    assert json.loads((folder / "model.json").read_text())["epochs"] == 2
    tool("train")(
        [CONFIG, "--work-dir", str(tmp_path), "--resume", str(folder / "epoch_2.pth"), "--cfg-options"] + options
    )
    assert (tmp_path / "model.safetensors").exists()


def test_both_kinds_of_weights_give_the_same_metrics(trained, tmp_path):
    metrics = []
    for name in ("epoch_1.pth", "model.safetensors"):
        out = tmp_path / "out" / f"{name}.json"
        arguments = [CONFIG, str(trained[0] / name), "--work-dir", str(tmp_path), "--out", str(out)]
        metrics.append(test.run([*arguments, "--cfg-options", *TINY]))
        assert json.loads(out.read_text()) == metrics[-1]
    assert metrics[0] == metrics[1]
    assert 0 <= metrics[0]["accuracy/top1"] <= 100


def test_amp_and_seed(tmp_path):
    arguments = [CONFIG, "--work-dir", str(tmp_path), "--amp", "--seed", "5", "--cfg-options", *TINY]
    tool("train")(arguments)
    assert json.loads((tmp_path / "model.json").read_text())["seed"] == 5
    written = next(tmp_path.glob("*/vis_data/config.py")).read_text()
    assert ("AmpOptimWrapper" if torch.cuda.is_available() else "AutocastOptimWrapper") in written


def test_same_seed_same_weights(tmp_path):
    weights = []
    for name in ("a", "b"):
        tool("train")([CONFIG, "--work-dir", str(tmp_path / name), "--seed", "1", "--cfg-options", *TINY])
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


@pytest.fixture
def refused(capsys):
    def run(name, *arguments):
        assert tool(name)(list(arguments)) == 2
        last = capsys.readouterr().err.split("error: ")
        assert len(last) == 2
        return last[1]

    return run


def test_missing_config(refused):
    assert "did you mean configs/digits/rope_mixed_vit.py" in refused("train", "configs/digits/rope_mixd_vit.py")
    assert "does not exist" in refused("train", "no/such/folder/x.py")


def test_missing_checkpoint(refused, tmp_path):
    assert "checkpoint 'nothing.pth' does not exist" in refused("test", CONFIG, "nothing.pth")
    assert "checkpoint 'nothing.pth'" in refused("train", CONFIG, "--resume", "nothing.pth")


def test_weights_that_do_not_fit(trained, tmp_path, refused):
    weights = str(trained[0] / "model.safetensors")
    message = refused("test", CONFIG, weights, "--work-dir", str(tmp_path), "--cfg-options", *TINY, "model.depth=2")
    assert "does not fit the model: blocks.1." in message


def test_missing_imagenet_shows_the_tree(tmp_path, refused):
    config = "configs/imagenet/deit3_400e/rope_mixed_vit_s.py"
    options = ["--cfg-options", f"train_dataloader.dataset.data_root={tmp_path}/none"]
    message = refused("train", config, "--work-dir", str(tmp_path), *options)
    assert f"{tmp_path}/none/train' does not exist" in message
    assert "n01440764/" in message
    assert "val/" in message


def test_torchrun_alone_starts_several_processes(monkeypatch, tmp_path, refused):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("RANK", raising=False)
    assert "torchrun" in refused("train", CONFIG, "--launcher", "pytorch", "--work-dir", str(tmp_path))
    assert "needs GPUs" in refused("train", CONFIG, "--launcher", "slurm", "--work-dir", str(tmp_path))


@pytest.mark.parametrize("name", ["train", "test"])
def test_help(name, capsys):
    with pytest.raises(SystemExit) as caught:
        tool(name)(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("--launcher", "--cfg-options", "--work-dir", "configs/digits"))


@pytest.mark.long
def test_two_processes_with_gloo(tmp_path):
    arguments = ["--launcher", "pytorch", "--work-dir", str(tmp_path), "--cfg-options", *TINY]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "tools/train.py"]
    result = run(*command, CONFIG, *arguments, CUDA_VISIBLE_DEVICES="")
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    # 24 images, 8 a batch, 2 processes: one full and one dropped batch each.
    assert "Epoch(train) [1][1/1]" in output
    assert "loss:" in output
    assert (tmp_path / "model.safetensors").exists()
    command[-1] = "tools/test.py"
    result = run(*command, CONFIG, str(tmp_path / "model.safetensors"), *arguments, CUDA_VISIBLE_DEVICES="")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "accuracy/top1" in result.stdout + result.stderr
