"""A planted pickle through every path that reads weights: refused by name, and nothing of it runs."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from mmengine.logging import HistoryBuffer
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import CheckpointLoader
from safetensors.torch import save_file

import visionpe.detection
from visionpe.cli import main
from visionpe.detection.clouds.scan import from_config, from_name
from visionpe.detection.running.checkpoint import read_state
from visionpe.scaling import measure
from visionpe.utils.checkpoints import TRUST, safe_torch_load
from visionpe.utils.errors import InputError

DIGITS = ["--model-kwargs", "num_classes=10", "in_chans=1"]
CLASSIFIER = "digits/rope_mixed_vit.py"
TINY = ["model.embed_dim=16", "model.depth=1", "model.num_heads=2", "train_cfg.max_epochs=1"]
TINY += ["train_dataloader.batch_size=4"]
TINY += [f"{stage}_dataloader.dataset.indices=8" for stage in ("train", "val", "test")]
FEATURES = {"embed_dim": 16, "depth": 1, "num_heads": 2, "img_size": 32, "out_indices": (0,)}
BACKBONE = {"type": "TimmFeatures", "model_name": "rope_vit_ti", **FEATURES}


class Planted:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint that would leave a file called ``ran``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(TRUST, raising=False)
    path = tmp_path / "epoch_1.pth"
    content = {
        "state_dict": {"weight": torch.zeros(1)},
        "meta": {"epoch": 1, "iter": 1},
        "more": Planted(tmp_path / "ran"),
    }
    torch.save(content, path)
    return path


def run(*arguments: object) -> None:
    """A command; what it prints as its last word becomes the exception."""
    code = main([str(a) for a in arguments])
    raise SystemExit(code)


def segmentor(path: Path) -> dict:
    return {
        "type": "TimmImageClassifier",
        "model_name": "rope_vit_ti",
        "init_cfg": {"type": "Pretrained", "checkpoint": str(path)},
    }


def as_work_dir(path: Path) -> Path:
    folder = path.parent / "work"
    folder.mkdir()
    shutil.copy(path, folder)
    (folder / "last_checkpoint").write_text(str(folder / path.name))
    return folder


PATHS = {
    "train, load_from": lambda p: run("train", CLASSIFIER, "--work-dir", "w", "--cfg-options", *TINY, f"load_from={p}"),
    "train, resume": lambda p: run("train", CLASSIFIER, "--work-dir", "w", "--resume", p, "--cfg-options", *TINY),
    "train, resume auto": lambda p: run(
        "train", CLASSIFIER, "--work-dir", as_work_dir(p), "--resume", "--cfg-options", *TINY
    ),
    "train, init_cfg": lambda p: run(
        *("train", CLASSIFIER, "--work-dir", "w", "--cfg-options", *TINY),
        *("model.init_cfg.type=Pretrained", f"model.init_cfg.checkpoint={p}"),
    ),
    "test": lambda p: run("test", CLASSIFIER, p, "--work-dir", "w", "--cfg-options", *TINY),
    "predict": lambda p: run("predict", image(p), "--config", CLASSIFIER, "--checkpoint", p, "--cfg-options", *TINY),
    "scaling": lambda p: run("scaling", "--model", "rope_vit_ti", "--checkpoint", p, "--resolutions", "1x", *DIGITS),
    "scaling of a config": lambda p: run(
        "scaling", "--config", "digits/fcn_rope_vit.py", "--checkpoint", p, "--resolutions", "1x"
    ),
    "measure": lambda p: measure(
        "rope_vit_ti", checkpoint=p, data="digits", model_kwargs={"num_classes": 10, "in_chans": 1}
    ),
    "export": lambda p: run("export", "rope_vit_ti", "--checkpoint", p),
    "points": lambda p: run("points", "predict", "--room", "1", "--checkpoint", p),
    "points of a config": lambda p: run(
        *("points", "predict", "--room", "1", "--config", "rooms/swin3d_tiny_none.py", "--checkpoint", p)
    ),
    "a scan's model": lambda p: from_name("swin3d_s_unet", str(p), 0.1, {}),
    "a scan's config": lambda p: from_config("rooms/swin3d_tiny_none.py", str(p), {}),
    "TimmFeatures, checkpoint_path": lambda p: MODELS.build({**BACKBONE, "checkpoint_path": str(p)}),
    "TimmFeatures, init_cfg": lambda p: MODELS.build(
        {**BACKBONE, "init_cfg": {"type": "Pretrained", "checkpoint": str(p)}}
    ).init_weights(),
    "classifier, init_cfg": lambda p: MODELS.build(segmentor(p)).init_weights(),
    "classifier, checkpoint_path": lambda p: MODELS.build(
        {"type": "TimmImageClassifier", "model_name": "rope_vit_ti", "checkpoint_path": str(p)}
    ),
    "mmengine": lambda p: CheckpointLoader.load_checkpoint(str(p), "cpu"),
    "mmengine, by address": lambda p: CheckpointLoader.load_checkpoint(p.as_uri().replace("file://", "http://"), "cpu"),
    "read_state": lambda p: read_state(str(p)),
    "timm": lambda p: timm.create_model("rope_vit_ti", checkpoint_path=str(p)),
}


def image(path: Path) -> Path:
    from PIL import Image

    Image.new("L", (28, 28)).save(path.with_name("digit.png"))
    return path.with_name("digit.png")


@pytest.mark.parametrize("name", PATHS)
def test_nothing_of_it_runs(
    name: str, planted: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "mmengine, by address":  # PyTorch's download, up to the file
        monkeypatch.setenv("TORCH_HOME", str(planted.parent))
        (planted.parent / "hub" / "checkpoints").mkdir(parents=True)
        shutil.copy(planted, planted.parent / "hub" / "checkpoints")
    init_default_scope("mmpretrain")
    with pytest.raises((InputError, ValueError, SystemExit, pickle.UnpicklingError, RuntimeError)) as refused:
        PATHS[name](planted)
    assert not (planted.parent / "ran").exists()
    said = "".join(capfd.readouterr()) + str(refused.value)
    if isinstance(refused.value, SystemExit):
        assert refused.value.code not in (0, None)
    if name != "timm":
        assert "posix.system, which can run code" in said or "scaling of a config" in name
        assert TRUST in said or "scaling of a config" in name
    assert "Traceback" not in said or name.startswith("mmengine")  # whose logger writes to a closed stream here


def test_what_training_writes_is_read(tmp_path: Path) -> None:
    buffer = HistoryBuffer([1.0, 3.0], [1, 1])
    logged = {"loss": buffer, "lr": np.float64(0.5), "times": np.arange(3.0), "step": np.int64(4), "text": "x"}
    torch.save({"state_dict": {"weight": torch.ones(2)}, "message_hub": logged}, tmp_path / "log.pth")
    found = CheckpointLoader.load_checkpoint(str(tmp_path / "log.pth"), "cpu")["message_hub"]
    assert found["loss"].statistics("mean") == 2.0
    assert (found["lr"], found["step"], found["times"].tolist()) == (0.5, 4, [0.0, 1.0, 2.0])


def test_a_log_buffer_looks_nothing_else_up(tmp_path: Path) -> None:
    class Sly:
        def __reduce__(self) -> tuple:
            return getattr, (HistoryBuffer, "__init__")

    torch.save({"x": Sly()}, tmp_path / "sly.pth")
    with pytest.raises((InputError, ValueError), match=r"was not loaded|is not looked up for a file"):
        CheckpointLoader.load_checkpoint(str(tmp_path / "sly.pth"), "cpu")


def test_the_switch_is_explicit(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRUST, "1")
    assert set(safe_torch_load(planted)) == {"state_dict", "meta", "more"}
    assert (planted.parent / "ran").exists()


@pytest.mark.parametrize("kind", ["empty", "cut", "text", "zip", "safetensors"])
def test_broken_files_are_one_clear_error(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"w.{'safetensors' if kind == 'safetensors' else 'pth'}"
    torch.save({"weight": torch.zeros(100)}, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    contents = {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "text": b"hello world",
        "zip": whole[:30],
        "safetensors": b"abc",
    }
    path.write_bytes(contents[kind])
    with pytest.raises(InputError, match=r"checkpoint '.*w\.\w+' is (empty|cut off, or no file of weights)"):
        read_state(str(path))
    if kind != "safetensors":
        with pytest.raises(InputError, match=r"is (?:empty|cut off, or no file of weights)"):
            safe_torch_load(path)


def test_safetensors_still_load(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(2)}, tmp_path / "w.safetensors")
    assert read_state(str(tmp_path / "w.safetensors"))["weight"].tolist() == [1, 1]
    assert visionpe.detection.checkpoint
