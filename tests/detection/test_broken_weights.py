"""Files that hold no weights, through every path that reads some: one clear error that names the file."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from broken_weights import write_broken
from mmengine.config import Config
from mmengine.registry import MODELS
from safetensors.torch import save_file
from tiny_voxels import TINY as TINY_SWIN3D
from torch import nn

from visionpe.cli import main
from visionpe.detection.running.checkpoint import read_state
from visionpe.detection.running.resume_check import check_start
from visionpe.detection.running.runner import load_strictly
from visionpe.utils.checkpoints import safe_torch_load
from visionpe.utils.errors import InputError
from visionpe.utils.file_kinds import check_file
from visionpe.utils.timm_models import create_model

VIT = {"embed_dim": 16, "depth": 1, "num_heads": 2, "img_size": 32}
BACKBONE = {"type": "TimmFeatures", "model_name": "rope_vit_ti", "out_indices": (0,), **VIT}
CLASSIFIER = {"type": "TimmImageClassifier", "model_name": "rope_vit_ti", **VIT}


def pretrained(path: Path) -> dict:
    return {"init_cfg": {"type": "Pretrained", "checkpoint": str(path)}}


def check(path: Path, *, resume: bool) -> None:
    check_start(nn.Linear(2, 2), Config({"model": {}, "load_from": str(path), "resume": resume}))


SWIN3D: list[nn.Module] = []


def filtered(path: Path) -> None:
    if not SWIN3D:
        SWIN3D.append(timm.create_model("swin3d_s_unet", num_classes=5, **TINY_SWIN3D))
    SWIN3D[0].load_filtered(path)


PATHS = {
    "create_model": lambda p: create_model("rope_vit_ti", p, **VIT),
    "timm": lambda p: timm.create_model("rope_vit_ti", checkpoint_path=str(p), **VIT),
    "timm, a path": lambda p: timm.create_model("rope_vit_ti", checkpoint_path=p, **VIT),
    "timm's own": lambda p: timm.create_model(
        *("vit_tiny_patch16_224",), checkpoint_path=str(p), embed_dim=16, depth=1, num_heads=2
    ),
    "overlay": lambda p: timm.create_model(
        "rope_vit_ti", pretrained=True, pretrained_cfg_overlay={"file": str(p)}, **VIT
    ),
    "TimmFeatures": lambda p: MODELS.build({**BACKBONE, "checkpoint_path": str(p)}),
    "TimmFeatures, init_cfg": lambda p: MODELS.build({**BACKBONE, **pretrained(p)}).init_weights(),
    "classifier": lambda p: MODELS.build({**CLASSIFIER, "checkpoint_path": str(p)}),
    "classifier, init_cfg": lambda p: MODELS.build({**CLASSIFIER, **pretrained(p)}).init_weights(),
    "test and predict": lambda p: load_strictly(nn.Linear(2, 2), str(p)),
    "load_from": lambda p: check(p, resume=False),
    "resume": lambda p: check(p, resume=True),
    "read_state": lambda p: read_state(str(p)),
}


@pytest.mark.parametrize("name", PATHS)
def test_one_clear_error(name: str, tmp_path: Path) -> None:
    for path, word in write_broken(tmp_path).values():
        # Whole arrays of numpy, but not of a ViT: timm's own models say so in their way.
        if (name, path.name) == ("read_state", "nothing.pth"):
            assert read_state(str(path)) == {}  # of a model without weights
            continue
        with pytest.raises(ValueError if path.name == "other.npz" else InputError) as refused:
            PATHS[name](path)
        said = str(refused.value)
        assert str(path) in said, path.name
        other = path.suffix == ".npz" or path.is_dir() or (path.name == "nothing.pth" and "does not fit" in said)
        assert word in said or other, (path.name, said)
        assert "\n" not in said, path.name


def test_the_published_swin3d_way_to_fine_tune(tmp_path: Path) -> None:
    for path, _ in write_broken(tmp_path).values():
        with pytest.raises(InputError) as refused:
            filtered(path)
        assert str(path) in str(refused.value)


def test_detectron2_files(tmp_path: Path) -> None:
    import pickle

    import numpy as np

    contents = {
        "cut": pickle.dumps({"model": {"a": np.zeros(100)}})[:60],
        "list": pickle.dumps([1]),
        "none": pickle.dumps({"model": {"a": 1}}),
        "text": b"hello",
        "empty": b"",
    }
    model = timm.create_model("vitdet_b", embed_dim=16, depth=2, num_heads=2, img_size=32, out_indices=(1,))
    for name, content in contents.items():
        path = tmp_path / f"{name}.pkl"
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"{name}.pkl"):
            model.load_pretrained(str(path))


def test_what_is_whole_passes(tmp_path: Path) -> None:
    weights = {"weight": torch.ones(3)}
    torch.save(weights, tmp_path / "new.pth")
    torch.save(weights, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    save_file(weights, tmp_path / "w.safetensors", metadata={"format": "pt"})
    for name in ("new.pth", "old.bin", "w.safetensors"):
        check_file(tmp_path / name)
        assert read_state(str(tmp_path / name))["weight"].tolist() == [1, 1, 1]
    assert safe_torch_load(tmp_path / "old.bin")["weight"].tolist() == [1, 1, 1]
    with pytest.raises(FileNotFoundError, match=r"none.pth' does not exist"):
        timm.create_model("rope_vit_ti", checkpoint_path=str(tmp_path / "none.pth"), **VIT)


TINY = ["model.embed_dim=16", "model.depth=1", "model.num_heads=2"]
SMALL = [f"{stage}_dataloader.dataset.indices=8" for stage in ("train", "val", "test")]
DIGITS = "digits/rope_mixed_vit.py"
COMMANDS = {
    "train": lambda p: ["train", DIGITS, "--cfg-options", f"load_from={p}", *TINY, *SMALL],
    "resume": lambda p: ["train", DIGITS, "--resume", p, "--cfg-options", *TINY, *SMALL],
    "test": lambda p: ["test", DIGITS, p, "--cfg-options", *TINY, *SMALL],
    "predict": lambda p: ["predict", "digit.png", "--config", DIGITS, "--checkpoint", p],
    "scaling": lambda p: [
        *("scaling", "--model", "rope_vit_ti", "--checkpoint", p, "--data", "digits", "--resolutions", "1x"),
        *("--model-kwargs", "num_classes=10", "in_chans=1", *(f"{key}={value}" for key, value in VIT.items())),
    ],
    "export": lambda p: ["export", "rope_vit_ti", "--checkpoint", p],
    "points": lambda p: ["points", "predict", "--room", "1", "--checkpoint", p],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_end_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new("L", (28, 28)).save("digit.png")
    files = write_broken(tmp_path)
    for kind in ("text.pth", "list.pth", "data.safetensors"):
        path, word = files[kind]
        capsys.readouterr()
        try:
            code = main(COMMANDS[name](str(path)))
        except SystemExit as stop:
            code, said = (stop.code, "") if isinstance(stop.code, int) else (2, f"{stop.code}\n")
        else:
            said = ""
        said = (said + capsys.readouterr().err).strip().splitlines()[-1]
        assert code in (1, 2)
        assert word in said, (kind, said)
        assert str(path) in said
