"""timm's conventions, over every registered name."""

from __future__ import annotations

from itertools import pairwise

import pytest
import timm
import torch
from conftest import VIT_NAMES, tiny_vit
from small_vits import NAMES_TI, SMALL, build, image
from timm.layers import DropPath
from timm.optim import param_groups_layer_decay, param_groups_weight_decay


def test_names() -> None:
    for encoding in ("none", "ape", "sincos", "rope", "rope_axial", "cpe", "alibi", "rope_ape", "rope_axial_ape"):
        for size in ("ti", "s", "b", "l"):
            assert f"{encoding}_vit_{size}" in VIT_NAMES


@pytest.mark.parametrize("name", VIT_NAMES)
def test_every_name(name: str) -> None:
    """The registered width and heads, one block deep; the other tests take the smallest size of each encoding."""
    with torch.device("meta"):  # shapes alone
        model = timm.create_model(name, **{**SMALL, "depth": 1})
        assert model(image(24, 40)).shape == (2, 5)
        (last,) = model.forward_intermediates(image(24, 40), indices=1, intermediates_only=True)
    assert last.shape == (2, model.embed_dim, 3, 5)


@pytest.mark.parametrize("name", NAMES_TI)
def test_any_size_forward_backward(name: str) -> None:
    model = build(name).train()
    for size in ((32, 32), (16, 16), (24, 40), (64, 48), (8, 8), (8, 64)):
        out = model(image(*size))
        assert out.shape == (2, 5)
        out.sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize("name", NAMES_TI)
def test_features(name: str) -> None:
    model = build(name)
    x = image(24, 40)
    with torch.no_grad():
        final, maps = model.forward_intermediates(x)
        assert [m.shape for m in maps] == [(2, model.embed_dim, 3, 5)] * 2
        torch.testing.assert_close(final, model.forward_features(x))
        (last,) = model.forward_intermediates(x, indices=1, intermediates_only=True, norm=True)
        torch.testing.assert_close(last.flatten(2).transpose(1, 2), final[:, 1:])  # row-major, class token first
        (tokens, prefix), *_ = model.forward_intermediates(
            x, indices=[0], intermediates_only=True, return_prefix_tokens=True, output_fmt="NLC", stop_early=True
        )
        assert (tokens.shape, prefix.shape) == ((2, 15, model.embed_dim), (2, 1, model.embed_dim))
        both = model.forward_intermediates(x, output_dict=True, return_prefix_tokens=True)
        assert set(both) == {"image_features", "image_intermediates", "image_intermediates_prefix"}

    backbone = timm.create_model(name, features_only=True, out_indices=(0, 1), **SMALL).eval()
    backbone.model.load_state_dict(
        {k: v for k, v in model.state_dict().items() if not k.startswith("head")}, strict=False
    )
    assert backbone.feature_info.channels() == [model.embed_dim] * 2
    assert backbone.feature_info.reduction() == [8, 8]
    with torch.no_grad():
        for ours, wanted in zip(backbone(x), maps):
            torch.testing.assert_close(ours, wanted)
    with pytest.raises(ValueError, match="output_fmt='NHWC'"):
        model.forward_intermediates(x, output_fmt="NHWC")


@pytest.mark.parametrize("name", NAMES_TI)
def test_classifier(name: str) -> None:
    model = build(name)
    x = image(32, 32)
    with torch.no_grad():
        tokens = model.forward_features(x)
        torch.testing.assert_close(model.forward_head(tokens), model(x))
        assert model.forward_head(tokens, pre_logits=True).shape == (2, 192)
        assert model.get_classifier().out_features == 5
        model.reset_classifier(3)
        assert model(x).shape == (2, 3)
        model.reset_classifier(0)
        assert model(x).shape == (2, 192)
        model.reset_classifier(0, "")
        assert model(x).shape == (2, 17, 192)


@pytest.mark.parametrize("name", NAMES_TI)
def test_gradient_checkpointing(name: str) -> None:
    x, grads = image(24, 40), []
    model = build(name).train()
    for enable in (False, True):
        model.zero_grad()
        model.set_grad_checkpointing(enable)
        model(x).square().sum().backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    for plain, recomputed in zip(*grads):
        torch.testing.assert_close(recomputed, plain)


@pytest.mark.parametrize("name", NAMES_TI)
def test_autocast(name: str) -> None:
    model = build(name)
    x = image(64, 48)
    with torch.no_grad():
        wide = model.forward_features(x)  # many numbers: ten logits would only measure luck
        with torch.autocast("cpu", torch.bfloat16):
            narrow = model.forward_features(x)
            assert model(x).dtype == torch.bfloat16
    # Keys meet cRSE's random tables unscaled: logits around 8, and so the rounding of the projection, show more.
    assert (narrow - wide).norm() / wide.norm() < (0.02 if name.startswith("crse") else 0.01)


@pytest.mark.parametrize("name", NAMES_TI)
def test_prefix_tokens_and_pooling(name: str) -> None:
    for keywords in (
        dict(reg_tokens=4),
        dict(class_token=False, global_pool="avg"),
        dict(class_token=False, reg_tokens=2, global_pool="avg", qk_norm=True),
        dict(global_pool="map"),
    ):
        model = build(name, **keywords)
        assert model(image(24, 40)).shape == (2, 5), keywords


@pytest.mark.parametrize("name", NAMES_TI)
def test_optimizer_groups(name: str) -> None:
    model = build(name)
    spared = model.no_weight_decay()
    assert spared <= set(dict(model.named_parameters())) | {"reg_token"}
    decayed = param_groups_weight_decay(model, 0.05, no_weight_decay_list=spared)[1]["params"]
    names = {id(p): key for key, p in model.named_parameters()}
    assert not {k for k in map(names.get, map(id, decayed)) if k.endswith(("table", "freqs"))}
    groups = param_groups_layer_decay(model, 0.05, no_weight_decay_list=spared, layer_decay=0.5)
    assert sum(len(g["params"]) for g in groups) == len(names)


@pytest.mark.parametrize("name", NAMES_TI)
def test_set_input_size(name: str) -> None:
    model = build(name)
    x = image(48, 64)
    with torch.no_grad():
        before = model(x)
        model.set_input_size(img_size=(48, 64))
        torch.testing.assert_close(model(x), before, atol=1e-5, rtol=1e-5)
        assert model.patch_embed.grid_size == (6, 8)
        model.set_input_size(img_size=(96, 64), patch_size=(16, 16))
        assert model(image(96, 64)).shape == (2, 5)


@pytest.mark.parametrize("name", NAMES_TI)
def test_checkpoint_of_one_size_loads_at_another(name: str) -> None:
    small, large = build(name), build(name, img_size=(64, 96))
    large.load_state_dict(small.state_dict())
    assert large(image(64, 96)).shape == (2, 5)
    nested = torch.nn.ModuleDict({"backbone": build(name, img_size=(64, 96))})
    nested.load_state_dict({f"backbone.{k}": v for k, v in small.state_dict().items()})
    for key, value in nested["backbone"].state_dict().items():
        torch.testing.assert_close(value, large.state_dict()[key])


def test_nothing_size_dependent_is_stored() -> None:
    for name in NAMES_TI:
        model = build(name)
        before = {k: v.shape for k, v in model.state_dict().items()}
        model(image(64, 48))
        assert {k: v.shape for k, v in model.state_dict().items()} == before
        assert not list(model.buffers())


@pytest.mark.parametrize("name", NAMES_TI)
def test_meta_device_and_dtype(name: str) -> None:
    with torch.device("meta"):
        assert timm.create_model(name, depth=2)(torch.randn(1, 3, 64, 64)).shape == (1, 1000)
    model = build(name, dtype=torch.bfloat16).bfloat16()
    assert model(image(24, 40).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("pos_encoding", ["none", "ape", "sincos", "rope_axial", "rope_mixed", "alibi"])
def test_patch_dropping(pos_encoding: str) -> None:
    """Dropped patches leave holes; those that stay keep their places."""
    model = tiny_vit(pos_encoding, patch_drop_rate=0.5).train()
    x = image(24, 24)
    kept, grid = model._embed(x)
    assert kept.shape[1] == 1 + 18
    assert grid.coords.shape == (2, 18, 2)
    model(x).sum().backward()
    with torch.no_grad():
        every, _ = model.eval()._embed(x)
    assert every.shape[1] == 1 + 36
    for sample in range(2):
        rows, columns = grid.coords[sample].long().unbind(-1)
        torch.testing.assert_close(kept[sample, 1:], every[sample, 1 + rows * 6 + columns])


def test_patch_dropping_is_refused_where_it_cannot_work() -> None:
    with pytest.raises(ValueError, match=r"'cpe' needs the full map.*patch_drop_rate=0.5"):
        tiny_vit("cpe", patch_drop_rate=0.5)


def test_attention_mask() -> None:
    """Tokens that are masked out change nothing, with and without a bias."""
    for pos_encoding in ("rope_mixed", "alibi"):
        model = tiny_vit(pos_encoding)
        mask = torch.ones(37, 37, dtype=torch.bool)
        mask[:, 30:] = False
        x, y = image(24, 24, batch=1), image(24, 24, batch=1)
        y[..., :20, :] = x[..., :20, :]  # patches 30 to 35 are the last row
        with torch.no_grad():
            a, b = (model.forward_features(t, attn_mask=mask)[:, :30] for t in (x, y))
            torch.testing.assert_close(a, b)
            additive = torch.zeros(37, 37).masked_fill(~mask, float("-inf"))
            torch.testing.assert_close(model.forward_features(x, attn_mask=additive)[:, :30], a)


@pytest.mark.parametrize("name", ["rope_vit_ti", "vitdet_b"])
def test_stochastic_depth(name: str) -> None:
    """It grows with the depth, as in timm, or is the same everywhere, as in DeiT-III."""
    sizes = dict(img_size=32, embed_dim=16, num_heads=2, depth=3, drop_path_rate=0.2)
    for constant, rates in ((False, [0.0, 0.1, 0.2]), (True, [0.2] * 3)):
        model = timm.create_model(name, constant_drop_path=constant, **sizes)
        for path in ("drop_path1", "drop_path2"):
            found = [getattr(getattr(block, path), "drop_prob", 0.0) for block in model.blocks]
            assert found == pytest.approx(rates)
    model = timm.create_model(name, constant_drop_path=True, **{**sizes, "drop_path_rate": 0.0})
    assert not any(isinstance(module, DropPath) for module in model.modules())


def test_same_seed_same_body() -> None:
    """Models that differ in the encoding alone start from the same weights elsewhere."""
    states = []
    for name in NAMES_TI:
        torch.manual_seed(0)
        model = timm.create_model(name, **SMALL)
        states.append({k: v for k, v in model.state_dict().items() if not k.startswith("pos_encoding")})
    for a, b in pairwise(states):
        assert all(torch.equal(a[k], b[k]) for k in a)
