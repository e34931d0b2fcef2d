"""With fused attention off, hooks on ``attn_drop`` see the attention weights, as in timm's models."""

from __future__ import annotations

import pytest
import timm
import torch
from conftest import ENCODINGS, randomize, tiny_spec
from timm.utils import AttentionExtract
from tiny_backbones import MODELS

import visionpe


@pytest.fixture(autouse=True)
def unfused():
    timm.layers.set_fused_attn(False)
    yield
    timm.layers.set_fused_attn(True)


CASES = [("none_vit_ti", name) for name in ENCODINGS] + [("none_vit_ti", "rope_mixed(policy=ntk)+rpb")]
CASES += [(family, spec) for family in ("vitdet_b", "swin_t", "cswin_t") for spec in ("rpb", "irpe", "rope_mixed+lepe")]


@pytest.mark.parametrize("policy", ["default", "temperature+decay"])
@pytest.mark.parametrize(("family", "spec"), CASES)
@torch.no_grad()
def test_maps_by_hooks(family: str, spec: str, policy: str) -> None:
    model = randomize(timm.create_model(family, pos_encoding=tiny_spec(spec), num_classes=3, **MODELS[family]))
    visionpe.set_policy(model, policy)
    x = torch.randn(1, 3, 40, 48)
    maps = AttentionExtract(model, method="hook")(x)
    assert len(maps) == sum(len(stage.blocks) for stage in getattr(model, "stages", [model]))
    for weights in maps.values():
        assert weights.shape[-1] == weights.shape[-2]
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    # What the hooks see is what is used.
    before = model(x)
    for module in model.modules():
        if hasattr(module, "attn_drop"):
            module.attn_drop.register_forward_hook(lambda module, given, out: out.flip(-1))
    assert (model(x) - before).abs().max() > 1e-3
