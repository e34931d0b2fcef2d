"""Windowed ViTs: parity with detectron2, padding, sizes, features, and what is refused."""

from __future__ import annotations

import copy
import pickle

import pytest
import timm
import torch
from conftest import randomize, tiny_spec
from reference_files import close, read
from timm.models._features import FeatureGetterNet

from visionpe.backbones.shared.windows import Windows
from visionpe.backbones.vitdet.model import WindowedVisionTransformer, evenly_spaced_blocks

TINY = dict(
    img_size=32,
    patch_size=4,
    pretrain_img_size=24,
    embed_dim=32,
    depth=4,
    num_heads=2,
    num_classes=5,
    window_size=3,
)


def tiny_vitdet(pos_encoding: object = "decomposed+ape", **kwargs: object) -> WindowedVisionTransformer:
    """Maps of 8 x 8 tokens, windows of 3 x 3, blocks 1 and 3 global, random weights."""
    return randomize(timm.create_model("vitdet_b", pos_encoding=tiny_spec(pos_encoding), **{**TINY, **kwargs}))


@pytest.mark.parametrize("run", ["native", "lowcontrast", "nonsquare"])
@torch.no_grad()
def test_detectron2(run: str) -> None:
    weights, inputs, outputs, _ = read("vitdet")
    model = tiny_vitdet(depth=3, global_blocks=(1,), num_classes=0)
    model.load_state_dict(weights)
    assert model.padding == "tokens"
    close(model.forward_features(inputs[run]), outputs[f"{run}.last_feat"])
    close(model.forward_intermediates(inputs[run], 1, intermediates_only=True)[0], outputs[f"{run}.last_feat"])


# One of each: on tokens, in attention with and without a bias, of the values, of several kinds.
SPECS = ["none", "decomposed+ape", "abswin", "cpe", "lape(ape)", "rope_mixed", "rpb", "irpe", "lepe", "attention_bias"]


@pytest.mark.parametrize("pos_encoding", SPECS)
def test_padding_changes_nothing(pos_encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More windows of padding: the same logits, and the same gradient of the image."""
    model, results = tiny_vitdet(pos_encoding), []
    for spare in ((0, 0), (1, 2)):
        monkeypatch.setattr(model, "windows", lambda size, spare=spare: Windows(size, (3, 3), spare=spare))
        x = torch.randn(2, 3, 28, 44, generator=torch.Generator().manual_seed(1)).requires_grad_()
        y = model(x)
        y.square().sum().backward()
        results.append((y, x.grad))
    for ours, padded in zip(*results):
        torch.testing.assert_close(ours, padded, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_padding_with_tokens_is_seen() -> None:
    """What published files were trained with is another function, wherever windows do not divide the map."""
    masked, tokens = tiny_vitdet(), tiny_vitdet(padding="tokens")
    tokens.load_state_dict(masked.state_dict())
    divided, other = torch.randn(1, 3, 24, 36), torch.randn(1, 3, 28, 36)
    torch.testing.assert_close(masked(divided), tokens(divided))
    assert not torch.allclose(masked(other), tokens(other), atol=1e-3)


@pytest.mark.parametrize("padding", ["mask", "tokens"])
@pytest.mark.parametrize("size", [(4, 20), (8, 8), (12, 36), (29, 43), (32, 32), (64, 20)])
@torch.no_grad()
def test_any_size(size: tuple[int, int], padding: str) -> None:
    """One token tall, smaller than a window, 3:1, not a multiple of the patch; a sample is not told of others."""
    model, x = tiny_vitdet(padding=padding), torch.randn(2, 3, *size)
    tokens = tuple(-(-side // 4) for side in size)
    assert model.forward_features(x).shape == (2, 32, *tokens)
    torch.testing.assert_close(model(x)[1:], model(x[1:]), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_what_windows_let_through() -> None:
    """A change of one token reaches its window, and the whole map from the first global block on."""
    model, x = tiny_vitdet("decomposed"), torch.randn(1, 3, 32, 32)
    changed = x.clone()
    changed[..., :4, :4] += 1
    before, after = (model.forward_intermediates(image, intermediates_only=True) for image in (x, changed))
    first, second = ((a - b).abs().amax(1)[0] > 1e-7 for a, b in zip(before[:2], after[:2]))
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[:3, :3] = True
    assert torch.equal(first, expected)
    assert second.all()


@torch.no_grad()
def test_layers_have_their_own_tables() -> None:
    """Each block reads its own row of its kind's tables."""
    model, x = tiny_vitdet("decomposed"), torch.randn(1, 3, 32, 32)
    inside = model.pos_encoding.inside
    assert inside["whole"]["decomposed"].height_table.shape == (2, 15, 16)
    assert inside["window"]["decomposed"].width_table.shape == (2, 5, 16)
    for kind, layer, block in (("window", 0, 0), ("whole", 0, 1), ("window", 1, 2), ("whole", 1, 3)):
        before = model.forward_intermediates(x, intermediates_only=True)
        inside[kind]["decomposed"].height_table[layer] += torch.randn_like(inside[kind]["decomposed"].height_table[0])
        after = model.forward_intermediates(x, intermediates_only=True)
        same = [torch.equal(a, b) for a, b in zip(before, after)]
        assert same == [i < block for i in range(4)]


@torch.no_grad()
def test_without_windows_it_is_a_vit() -> None:
    plain = timm.create_model(
        "none_vit_ti",
        pos_encoding="decomposed+ape",
        class_token=False,
        global_pool="avg",
        init_values=0,
        **{k: v for k, v in TINY.items() if k not in ("pretrain_img_size", "window_size")},
    )
    randomize(plain)
    model = tiny_vitdet(window_size=0, pretrain_img_size=32)
    model.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(x), plain(x), atol=1e-6, rtol=1e-5)


def test_global_blocks_are_spread() -> None:
    assert [evenly_spaced_blocks(n) for n in (12, 24, 32)] == [(2, 5, 8, 11), (5, 11, 17, 23), (7, 15, 23, 31)]
    assert [evenly_spaced_blocks(n) for n in (1, 2, 3, 4)] == [(0,), (1,), (2,), (1, 3)]


@torch.no_grad()
def test_features() -> None:
    x = torch.randn(2, 3, 28, 44)
    backbone = timm.create_model("rope_vitdet_b", features_only=True, out_indices=(1, 3), **TINY)
    assert backbone.feature_info.channels() == [32, 32]
    assert backbone.feature_info.reduction() == [4, 4]
    assert [f.shape for f in backbone(x)] == [(2, 32, 7, 11)] * 2
    model = tiny_vitdet(neck_channels=16)
    final, maps = model.forward_intermediates(x, (0, 3), norm=True)
    assert [f.shape for f in (final, *maps)] == [(2, 16, 7, 11)] * 3
    torch.testing.assert_close(final, maps[1])
    torch.testing.assert_close(final, model.forward_features(x))
    flat = model.forward_intermediates(x, 1, norm=True, output_fmt="NLC", intermediates_only=True)[0]
    torch.testing.assert_close(flat.mT.unflatten(2, (7, 11)), maps[1])
    assert model(x).shape == (2, 5)
    torch.testing.assert_close(model.forward_head(final), model(x))
    model.reset_classifier(3)
    assert model(x).shape == (2, 3)
    full = FeatureGetterNet(model, (1, 3), norm=True)
    assert [f.shape[1] for f in full(x)] == full.feature_info.channels() == [16] * 2


@torch.no_grad()
def test_residual_blocks_start_as_the_identity() -> None:
    torch.manual_seed(1)
    x = torch.randn(1, 3, 32, 32)
    model = timm.create_model("none_vitdet_b", residual_blocks=(1, 3), **TINY).eval()
    plain = timm.create_model("none_vitdet_b", **TINY).eval()
    model.load_state_dict(plain.state_dict())
    torch.testing.assert_close(model(x), plain(x))
    block = randomize(model).blocks[1]
    maps = torch.randn(2, 5, 6, 32)
    inner = block.residual
    y = maps.permute(0, 3, 1, 2)
    for n in (1, 2, 3):
        y = torch.nn.functional.conv2d(y, inner.get_parameter(f"conv{n}.weight"), padding=int(n == 2))
        norm = inner.get_submodule(f"norm{n}")
        y = torch.nn.functional.layer_norm(y.permute(0, 2, 3, 1), y.shape[1:2], norm.weight, norm.bias, 1e-6)
        y = (torch.nn.functional.gelu(y) if n < 3 else y).permute(0, 3, 1, 2)
    torch.testing.assert_close(inner(maps), maps + y.permute(0, 2, 3, 1), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_input_size_and_copies() -> None:
    """The nominal size changes what global blocks measure from, and nothing else; outputs at it stay."""
    model, x = tiny_vitdet(), torch.randn(1, 3, 40, 48)
    expected = model(x)
    model.set_input_size(img_size=(40, 48))
    tables = model.pos_encoding.inside["whole"]["decomposed"]
    assert (tables.height_table.shape[1], tables.width_table.shape[1]) == (19, 23)
    assert model.pos_encoding.map["ape"].table.shape == (6, 6, 32)
    torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pickle.loads(pickle.dumps(copy.deepcopy(model)))(x), expected, atol=1e-5, rtol=1e-5)


def test_checkpointing_and_autocast() -> None:
    model, x = tiny_vitdet(drop_path_rate=0.0), torch.randn(2, 3, 28, 44)
    expected = model(x)
    model.set_grad_checkpointing()
    y = model.train()(x)
    torch.testing.assert_close(y, expected)
    y.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert (model(x) - expected).abs().max() < 0.05 * expected.abs().max()
    names = dict(model.named_parameters())
    assert model.no_weight_decay() - {"cls_token", "reg_token"} == {k for k in names if k.startswith("pos_encoding.")}


def test_abswin_has_the_window_of_the_model() -> None:
    assert tiny_vitdet("abswin").pos_encoding.map["abswin"].window_table.shape == (3, 3, 32)
    own = tiny_vitdet({"name": "abswin", "window": 2})
    assert own.pos_encoding.map["abswin"].window_table.shape == (2, 2, 32)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"class_token": True}, "class_token=True: tokens of windowed blocks are a map"),
        ({"reg_tokens": 2}, "reg_tokens=2.*allowed: 0, or a vit_"),
        ({"patch_drop_rate": 0.5}, "patch_drop_rate=0.5 would leave holes"),
        ({"global_blocks": (1, 4)}, r"global_blocks=\(1, 4\): allowed are blocks 0 to 3"),
        ({"residual_blocks": (-1,)}, r"residual_blocks=\(-1,\)"),
        ({"global_pool": "token"}, "global_pool='token' needs a class token"),
        ({"padding": "wrap"}, "padding='wrap' is unknown; allowed: mask, tokens, values"),
        ({"window_size": (3, 0)}, r"window_size=\(3, 0\) is no size"),
        ({"pos_encoding": "ropes"}, "encoding 'ropes' is unknown"),
    ],
)
def test_refusals(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        timm.create_model("vitdet_b", **{**TINY, **kwargs})


def test_attention_masks_are_refused() -> None:
    with pytest.raises(ValueError, match="attn_mask is of all pairs"):
        tiny_vitdet()(torch.randn(1, 3, 32, 32), torch.ones(64, 64))


@pytest.mark.long
def test_compile() -> None:
    model, x = tiny_vitdet(depth=2), torch.randn(2, 3, 28, 44)
    y = torch.compile(model, fullgraph=True, backend="aot_eager")(x)
    y.sum().backward()
    torch.testing.assert_close(y, model(x), atol=1e-6, rtol=1e-5)
    torch._dynamo.reset()


@pytest.mark.slow
@torch.no_grad()
def test_export_serves_every_size() -> None:
    """Every size of more than one window along each axis."""
    model = tiny_vitdet(depth=2)
    dynamic = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    exported = torch.export.export(model, (torch.randn(2, 3, 28, 44),), dynamic_shapes=(dynamic,)).module()
    for batch, size in ((2, (28, 44)), (1, (32, 32)), (3, (36, 24)), (1, (29, 43)), (2, (16, 60))):
        x = torch.randn(batch, 3, *size)
        torch.testing.assert_close(exported(x), model(x), atol=1e-5, rtol=1e-5)
