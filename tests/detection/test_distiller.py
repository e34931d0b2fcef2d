"""A backbone learns the features of another, and what it learned stands in for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from visionpe.detection.models.distiller import FeatureDistiller, unexplained
from visionpe.detection.running.runner import build_runner, load_config

CONFIG = Path(__file__).parents[2] / "configs/caltech101/distill_dinov2_vit_s.py"
SMALL: dict[str, Any] = {"embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 0}
FEATURES: dict[str, Any] = {"type": "TimmFeatures", "model_name": "dinov2_vit_s", **SMALL, "img_size": 56}
FEATURES |= {"out_indices": (0, 1), "final_norm": True}


def published() -> dict[str, torch.Tensor]:
    """Weights of timm's model, whose positions are a table."""
    torch.manual_seed(0)
    return timm.create_model("vit_small_patch14_dinov2", **SMALL, img_size=56).state_dict()


def test_unexplained() -> None:
    wanted = torch.randn(2, 3, 4, 5)
    assert unexplained(wanted, wanted) == 0
    mean = wanted.mean(dim=(0, 2, 3), keepdim=True).expand_as(wanted)
    torch.testing.assert_close(unexplained(mean, wanted), torch.tensor(1.0))


def test_the_same_weights_give_the_same_features(tmp_path: Path) -> None:
    weights = str(tmp_path / "weights.safetensors")
    save_file(published(), weights)
    given = {**FEATURES, "checkpoint_path": weights}
    same = FeatureDistiller(backbone=given, teacher=given)
    images = torch.randn(2, 3, 56, 56)
    assert all(loss.item() == 0 for loss in same(images, mode="loss").values())
    other = FeatureDistiller(backbone={**given, "pos_encoding": "rope_axial"}, teacher=given)
    losses = other.train()(images, mode="loss")
    sum(losses.values()).backward()
    assert all(loss.item() > 0 for loss in losses.values())
    assert not other.teacher.training
    assert not [n for n, p in other.teacher.named_parameters() if p.requires_grad or p.grad is not None]
    assert not [key for key in other.state_dict() if not key.startswith("backbone.")]
    with pytest.raises(ValueError, match="allowed: the same shapes"):
        FeatureDistiller(backbone={**given, "out_indices": (1,)}, teacher=given)(images, mode="loss")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_trained_by_its_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        for name in "abc":
            folder = Path("data/caltech101") / split / name
            folder.mkdir(parents=True)
            for index in range(12):
                Image.new("RGB", (80, 70), (20 * index, 90, 200)).save(folder / f"{index}.jpg")
    save_file(published(), "weights.safetensors")
    part = {**SMALL, "img_size": 56, "out_indices": (0, 1), "pretrained": False}
    part["checkpoint_path"] = "weights.safetensors"
    options = {f"model.{which}.{key}": value for which in ("backbone", "teacher") for key, value in part.items()}
    options |= {"train_cfg.max_iters": 2, "train_dataloader.batch_size": 2, "work_dir": "work"}
    config = load_config(str(CONFIG), options)
    config.train_dataloader.dataset.pipeline[0].size = 56
    build_runner(config, stages=("train",)).train()
    again = timm.create_model(
        "dinov2_vit_s", **SMALL, img_size=56, pos_encoding="rope_axial", checkpoint_path="work/backbone.safetensors"
    )
    weight = "blocks.0.attn.qkv.weight"
    before, after = published()[weight], again.state_dict()[weight]
    assert 0 < (after - before).abs().max() < 0.1
