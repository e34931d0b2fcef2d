"""Extractors of features from a saved model, and saved themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from test_saved_size import MODELS, SIZE, built, hub, saves_keywords

import visionpe


@saves_keywords
def test_features_of_a_saved_model(tmp_path: Path) -> None:
    model = built("vit", "rope_axial", policy="interpolate")
    getter = hub(model, tmp_path, features_only=True, out_indices=(0, 1))
    x = torch.randn(1, 3, 192, 192)
    with torch.no_grad():
        for ours, theirs in zip(getter(x), model.forward_intermediates(x, [0, 1], intermediates_only=True)):
            torch.testing.assert_close(ours, theirs)


@saves_keywords
@pytest.mark.parametrize("backbone", MODELS)
def test_a_saved_extractor_of_features(backbone: str, tmp_path: Path) -> None:
    """With the size of training and the policy of the model inside, and without what it was cut down by."""
    spec, indices = "sincos+rope_axial", (0,)
    model = built(backbone, spec, features_only=True, out_indices=indices)
    visionpe.set_policy(model, "interpolate")
    again = hub(model, tmp_path / "a")
    assert type(again) is type(model)
    assert again.state_dict().keys() == model.state_dict().keys()
    for size in (SIZE, (192, 160)):
        x = torch.randn(1, 3, *size)
        with torch.no_grad():
            for ours, theirs in zip(again(x), model(x), strict=True):
                torch.testing.assert_close(ours, theirs)
    weights = model.state_dict()
    gone = next(key for key in weights if key.endswith("attn.qkv.weight"))
    save_file({k: v.clone() for k, v in weights.items() if k != gone}, tmp_path / "a" / "model.safetensors")
    with pytest.raises(RuntimeError, match=rf"missing from the file: {gone.removeprefix('model.')}"):
        timm.create_model(f"local-dir:{tmp_path / 'a'}", pretrained=True)
