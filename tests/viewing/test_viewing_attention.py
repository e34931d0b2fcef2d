"""Attention that is looked at, against timm's hooks and dense formulas."""

import pytest
import timm
import torch
from conftest import tiny_vit
from timm.layers import set_fused_attn
from timm.models.mvitv2 import MultiScaleVit, MultiScaleVitCfg
from timm.utils import AttentionExtract

import visionpe
from visionpe.attention import kernels
from visionpe.attention.dispatch import AttentionWeights
from visionpe.viewing.attention import attention_layers, attention_rollout

IMAGES = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))  # 6 x 8 patches of 4 pixels


@pytest.fixture(scope="module")
def vit():
    return tiny_vit("rope_mixed+rpb").eval()


def all_rows(layer):
    return layer.weights.rows(0, layer.weights.q.shape[-2])


@pytest.mark.parametrize("spec", ["rope_mixed+rpb", "alibi", "none", "decomposed", "ape+cpe"])
def test_they_are_what_hooks_see(spec):
    model = tiny_vit(spec).eval()
    layers = attention_layers(model, IMAGES)
    set_fused_attn(False)
    try:
        unfused = tiny_vit(spec).eval()
        unfused.load_state_dict(model.state_dict())
        maps = list(AttentionExtract(unfused, method="hook")(IMAGES).values())
    finally:
        set_fused_attn(True)
    assert len(maps) == len(layers) == 2
    for layer, seen in zip(layers, maps):
        torch.testing.assert_close(all_rows(layer), seen, atol=1e-6, rtol=1e-5)


def test_what_a_token_attends_to(vit):
    layer = attention_layers(vit, IMAGES)[1]
    rows = all_rows(layer)
    for token, at in ((0, 0), ((0, 0), 1), ((2, 5), 1 + 2 * 8 + 5), ((5, 7), 48)):
        spatial, prefix = layer.of(token)
        assert spatial.shape == (2, 2, 6, 8)
        assert prefix.shape == (2, 2, 1)
        torch.testing.assert_close(torch.cat([prefix, spatial.flatten(2)], -1), rows[:, :, at])


@pytest.mark.parametrize("token", [1, -1, (6, 0), (0, 8), (-1, 0), (1, 2, 3)])
def test_tokens_that_are_none_are_refused(vit, token):
    with pytest.raises(ValueError, match="token="):
        attention_layers(vit, IMAGES)[0].of(token)


@pytest.mark.parametrize("chunk", [None, 5])
def test_rollout_is_the_product_of_all_layers(vit, monkeypatch, chunk):
    layers = attention_layers(vit, IMAGES)
    dense = torch.eye(49)
    for layer in layers:
        dense = (0.5 * torch.eye(49) + 0.5 * all_rows(layer).mean(1)) @ dense
    if chunk:
        monkeypatch.setattr(AttentionWeights, "chunks", lambda self: kernels.ranges(49, chunk))
    spatial, prefix = attention_rollout(layers, [0, (3, 2)])
    expected = dense[:, [0, 1 + 3 * 8 + 2]]
    torch.testing.assert_close(torch.cat([prefix, spatial.flatten(2)], -1), expected, atol=1e-6, rtol=1e-5)
    with pytest.raises(ValueError, match="residual"):
        attention_rollout(layers, [0], residual=1.5)
    with pytest.raises(ValueError, match="layers"):
        attention_rollout([], [0])


def test_reach_of_each_head(vit):
    layer = attention_layers(vit, IMAGES)[0]
    places = layer.grid.positions()
    rows = all_rows(layer)[..., 1:, 1:]
    expected = (rows / rows.sum(-1, keepdim=True) * torch.cdist(places, places)).sum(-1).mean((0, 2))
    torch.testing.assert_close(layer.spread()[1], expected)


def test_timm_models_adapted():
    own = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=0).eval()
    set_fused_attn(False)
    try:
        plain = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=0).eval()
        plain.load_state_dict(own.state_dict())
        images = torch.rand(1, 3, 32, 32)
        maps = list(AttentionExtract(plain, method="hook")(images).values())
    finally:
        set_fused_attn(True)
    for layer, seen in zip(attention_layers(visionpe.adapt(own), images), maps):
        torch.testing.assert_close(all_rows(layer), seen, atol=1e-6, rtol=1e-5)


def test_windows_reach_and_have_no_maps_of_a_token():
    model = timm.create_model(
        "swin_t", img_size=32, patch_size=2, window_size=4, embed_dim=8, depths=(2, 1), num_heads=(1, 2)
    )
    layers = attention_layers(model, torch.rand(1, 3, 32, 32))
    assert [layer.windows for layer in layers] == [16, 16, 4]
    assert all(0 < float(layer.spread()[1].max()) < 18**0.5 for layer in layers)
    with pytest.raises(ValueError, match="16 windows"):
        layers[0].of((0, 0))
    with pytest.raises(ValueError, match="windows"):
        attention_rollout(layers, [(0, 0)])


def test_pooled_queries():
    model = MultiScaleVit(MultiScaleVitCfg(depths=(1, 1), embed_dim=8, num_heads=1), img_size=64, num_classes=0)
    layers = attention_layers(visionpe.adapt(model), torch.rand(1, 3, 64, 64))
    assert [layer.query_size for layer in layers] == [(16, 16), (8, 8)]
    spatial, prefix = layers[1].of((7, 7))
    assert spatial.shape[-2:] == layers[1].grid.size
    torch.testing.assert_close(spatial.sum((-1, -2)) + prefix.sum(-1), torch.ones(1, 2))
    assert all(torch.isfinite(layer.spread()[1]).all() for layer in layers)


def test_the_model_is_left_as_it_was(vit):
    before = vit(IMAGES)
    vit.train()
    vit.blocks[0].eval()
    attention_layers(vit, IMAGES)
    assert vit.training
    assert vit.blocks[1].training
    assert not vit.blocks[0].training
    vit.eval()
    assert vit(IMAGES).equal(before)


def test_models_of_which_nothing_is_seen():
    with pytest.raises(ValueError, match="adapt"):
        attention_layers(torch.nn.Conv2d(3, 3, 3), IMAGES)
    with pytest.raises(ValueError, match="along the axes"):
        attention_layers(tiny_vit({"name": "manhattan", "form": "axial"}), IMAGES)
