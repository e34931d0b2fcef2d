"""Swin3D against the reference files."""

from __future__ import annotations

import json
from typing import Any

import pytest
import timm
import torch
from reference_files import REFERENCE
from safetensors import safe_open
from torch import Tensor

from visionpe.backbones.shared.voxel_level import Level
from visionpe.sparse import Voxels


def reference(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(REFERENCE / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["config"])  # noqa: SIM118


def parameters(data: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key[6:]: value for key, value in data.items() if key.startswith("param.")}


def agree(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


def sorted_by(coords: Tensor) -> Tensor:
    """The order of rows by their coordinates."""
    return torch.tensor(sorted(range(len(coords)), key=lambda i: coords[i].tolist()))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_stage(dtype: torch.dtype, tolerance: float) -> None:
    data, config = reference("swin3d_stage")
    model = timm.create_model(
        "swin3d_s",
        embed_dims=(config["dim"], config["out_dim"]),
        depths=(config["depth"], 1),
        num_heads=(config["num_heads"], 6),
        window_size=config["window_size"],
        first_down_stride=config["down_stride"],
    )
    state = {**model.state_dict(), **parameters(data)}
    assert parameters(data).keys() <= model.state_dict().keys()
    model.load_state_dict(state)
    model = model.to(dtype).eval()
    voxels = Voxels(data["input.feats"].to(dtype), data["input.coords"].long(), data["input.signals"].to(dtype))
    level = Level(voxels, 64)
    stage = model.layers[0]
    with torch.no_grad():
        first = stage.blocks[0](voxels.features, stage.pos_encoding, level, level.cut(5, False))
        agree(first, data["expect.block0"], tolerance)
        y = stage(voxels.features, level)
        agree(y, data["expect.block1"], tolerance)
        down, coarse = model._down(stage.downsample, y, level)
    own, theirs = sorted_by(coarse.voxels.coords), sorted_by(data["expect.down.coords"])
    assert torch.equal(coarse.voxels.coords[own], data["expect.down.coords"][theirs].long())
    assert torch.equal(coarse.voxels.signals[own].float(), data["expect.down.signals"][theirs][:, 1:])
    agree(down[own], data["expect.down.feats"][theirs], tolerance)


def unet_of(config: dict[str, Any], **options: Any) -> torch.nn.Module:
    return timm.create_model(
        "swin3d_s_unet",
        embed_dims=config["channels"],
        depths=config["depths"],
        num_heads=config["heads"],
        window_size=config["window_sizes"],
        first_down_stride=config["down_stride"],
        in_chans=config["in_channels"],
        num_classes=config["num_classes"],
        **options,
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 2e-5)])
def test_unet(dtype: torch.dtype, tolerance: float) -> None:
    data, config = reference("swin3d_unet")
    model = unet_of(config)
    assert parameters(data).keys() == model.state_dict().keys()
    model.load_state_dict(parameters(data))
    model = model.to(dtype).eval()
    x = data["input.feats"].to(dtype), data["input.coords"], data["input.signals"].to(dtype)
    with torch.no_grad():
        agree(model(x), data["expect.logits"], tolerance)
        agree(model.forward_features(x).features, data["expect.decoder"], tolerance)
        levels = model.forward_intermediates(x, intermediates_only=True)
    for i, level in enumerate(levels):
        own, theirs = (sorted_by(c) for c in (level.coords, data[f"expect.enc{i}.coords"]))
        assert torch.equal(level.coords[own], data[f"expect.enc{i}.coords"][theirs].long())
        agree(level.features[own], data[f"expect.enc{i}.feats"][theirs], tolerance)
    encoder = timm.create_model(
        "swin3d_s",
        features_only=True,
        embed_dims=config["channels"],
        depths=config["depths"],
        num_heads=config["heads"],
        window_size=config["window_sizes"],
        out_indices=(0, 2),
    )
    encoder.load_state_dict(parameters(data))  # the decoder is left out
    assert encoder.feature_info.channels() == [16, 32]
    assert encoder.feature_info.reduction() == [1, 6]
    with torch.no_grad():
        features = encoder.to(dtype).eval()(x)
    assert [f.stride for f in features] == [1, 6]
    torch.testing.assert_close(features[1].features, levels[2].features)
