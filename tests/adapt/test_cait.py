"""Adapted CaiT is timm's."""

from __future__ import annotations

from typing import Any

import timm
import torch
from adapted_models import check_plain, original
from adapted_pyramids import check_copies, check_methods, check_training
from timm.layers import resample_abs_pos_embed

import visionpe

NAME = "cait_xxs24_224"
SMALL: dict[str, Any] = {"embed_dim": 96, "num_heads": 4, "depth": 2, "img_size": 96}


def resized(model: Any, size: tuple[int, int]) -> Any:
    """timm's model at another size, with the table resized as timm does elsewhere."""
    other = timm.create_model(NAME, num_classes=5, **{**SMALL, "img_size": size}).eval()
    state = model.state_dict()
    grid = other.patch_embed.grid_size
    state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], grid, (6, 6), num_prefix_tokens=0)
    other.load_state_dict(state)
    return other


def test_family() -> None:
    check_plain(NAME, SMALL, 16, resized=resized)


def test_what_timm_does_with_models() -> None:
    adapted = visionpe.adapt(original(NAME, SMALL))
    check_methods(adapted, (96, 96))
    check_copies(adapted, [(96, 96), (64, 80)])
    check_training(adapted, (64, 80))


def test_features_have_no_class_token() -> None:
    features = visionpe.adapt(timm.create_model(NAME, features_only=True, out_indices=[0, 1], **SMALL))
    assert [f.shape for f in features(torch.rand(1, 3, 48, 80))] == [(1, 96, 3, 5)] * 2


def test_nominal_size() -> None:
    """timm's has no method for it, ours has one as every plain model has."""
    adapted = visionpe.adapt(timm.create_model(NAME, **SMALL))
    adapted.set_input_size(img_size=(96, 128))
    assert adapted.patch_embed.grid_size == (6, 8) == tuple(adapted.pos_encoding.ape.table.shape[:2])
