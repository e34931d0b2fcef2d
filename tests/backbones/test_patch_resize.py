"""Patches that grow with the image, and policies chosen at construction."""

from __future__ import annotations

from math import ceil

import pytest
import timm
import torch
from conftest import randomize, tiny_vit

import visionpe
from visionpe.backbones.shared.patches import AdaptivePatchEmbed, nearest_divisor

TINY = dict(img_size=24, patch_size=4, embed_dim=16, depth=1, num_heads=2, num_classes=3)


def seen(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(x)


def test_tokens_stay_those_of_training() -> None:
    model = tiny_vit("rope_mixed+ape", depth=1)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    small, large = torch.randn(1, 3, 24, 24), torch.randn(1, 3, 48, 72)
    native, plain = seen(model, small), seen(model, large)
    assert "patch_resize" in visionpe.policies(model)
    visionpe.set_policy(model, "patch_resize")
    assert torch.equal(seen(model, small), native)
    with torch.no_grad():
        final, maps = model.forward_intermediates(large)
    assert final.shape == (1, 37, 32)
    assert maps[-1].shape == (1, 32, 6, 6)
    # A patch and its kernel, enlarged together, meet with the same result: so does the whole model.
    enlarged = torch.nn.functional.interpolate(
        small.unflatten(2, (6, 4)).unflatten(4, (6, 4)).permute(0, 2, 4, 1, 3, 5).reshape(36, 3, 4, 4),
        size=(8, 12),
        mode="bilinear",
    )
    enlarged = enlarged.reshape(1, 6, 6, 3, 8, 12).permute(0, 3, 1, 4, 2, 5).reshape(1, 3, 48, 72)
    torch.testing.assert_close(seen(model, enlarged), native, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert model.patch_embed.patch_size == (4, 4)
    visionpe.set_policy(model, "interpolate")  # it ends where it is not named again
    assert not model.patch_embed.grows
    visionpe.set_policy(model, "default")
    assert torch.equal(seen(model, large), plain)


def test_sides() -> None:
    embed = AdaptivePatchEmbed(224, 16)
    assert embed.patch((448, 448)) == (16, 16)
    embed.set_policy("patch_resize")
    assert embed.patch((224, 224)) == (16, 16)
    assert embed.patch((448, 1024)) == (32, 64)
    assert embed.patch((144, 192)) == (9, 12)  # 10.3 and 13.7 asked for
    assert nearest_divisor(512, 36.6) == 32
    with pytest.raises(ValueError, match=r"a width of 227 pixels has no divisor near 16\.21"):
        embed.patch((224, 227))
    padding = AdaptivePatchEmbed(230, 16, dynamic_img_pad=True, strict_img_size=False)
    padding.set_policy("patch_resize")
    assert padding.patch((230, 227)) == (16, 16)
    assert padding.patch((500, 115)) == (35, 8)
    with torch.no_grad():
        assert padding(torch.randn(1, 3, 500, 115)).shape == (1, ceil(500 / 35) * ceil(115 / 8), 768)
    assert not AdaptivePatchEmbed(None, 16).modifiers


def test_measured_from_the_trained_size() -> None:
    """The nominal size may change, and the patch: the tokens stay those from which the encodings measure."""
    model = tiny_vit("rope_axial", depth=1)
    model.set_input_size(img_size=(48, 48))
    visionpe.set_policy(model, "patch_resize")
    assert model.patch_embed.patch((48, 96)) == (8, 16)
    model.set_trained_size((48, 48), (4, 4))
    assert model.pos_encoding["rope_axial"].grid_size == (12, 12)
    assert model.patch_embed.patch((48, 96)) == (4, 8)
    model.set_input_size(patch_size=(8, 8))
    with torch.no_grad():
        assert model.forward_features(torch.randn(1, 3, 48, 96)).shape == (1, 145, 32)
        visionpe.set_policy(model, "extrapolate")
        assert model.forward_features(torch.randn(1, 3, 48, 96)).shape == (1, 73, 32)


@pytest.mark.parametrize(
    ("name", "keywords", "maps"),
    [
        ("swin_t", dict(embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=3), [(6, 6), (3, 3)]),
        ("decomposed_vitdet_b", dict(embed_dim=16, depth=2, num_heads=2, window_size=3), [(6, 6), (6, 6)]),
    ],
)
def test_maps(name: str, keywords: dict, maps: list) -> None:
    """Models with windows, which pad their images."""
    model = randomize(timm.create_model(name, img_size=24, patch_size=4, num_classes=3, **keywords))
    small, large = torch.randn(1, 3, 24, 24), torch.randn(1, 3, 47, 70)
    native = seen(model, small)
    visionpe.set_policy(model, "patch_resize")
    assert torch.equal(seen(model, small), native)
    with torch.no_grad():
        features = model.forward_intermediates(large, intermediates_only=True)
    assert [tuple(f.shape[2:]) for f in features] == maps


def test_gradients_and_half_precision() -> None:
    embed = AdaptivePatchEmbed(8, 4, in_chans=1, embed_dim=2, strict_img_size=False).double()
    embed.set_policy("patch_resize")
    x = torch.randn(1, 1, 12, 6, dtype=torch.float64, requires_grad=True)
    run = lambda x, weight, bias: embed(x).square()  # noqa: E731
    assert torch.autograd.gradcheck(run, (x, embed.proj.weight, embed.proj.bias), fast_mode=True)
    half, wanted = embed.bfloat16()(x.bfloat16()), embed.double()(x.bfloat16().double())
    torch.testing.assert_close(half.double(), wanted, atol=0.05, rtol=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        assert embed.float()(x.float()).dtype == torch.bfloat16


@pytest.mark.slow
def test_compile_and_export() -> None:
    model = tiny_vit("rope_axial", depth=1)
    visionpe.set_policy(model, "patch_resize")
    torch._dynamo.reset()
    compiled = torch.compile(model.patch_embed, fullgraph=True, backend="eager")
    for size in ((24, 24), (48, 36)):
        x = torch.randn(1, 3, *size)
        torch.testing.assert_close(compiled(x), model.patch_embed(x))
    graph = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(graph(x), model(x))
    several = {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    with pytest.raises(ValueError, match="policy='patch_resize' cannot be exported"):
        torch.export.export(model, (x,), dynamic_shapes=(several,))


@pytest.mark.parametrize(
    ("name", "policy", "keywords"),
    [
        ("rope_vit_ti", "yarn+temperature", TINY),
        ("ape_vit_ti", "window_aware(3)+patch_resize", TINY),
        ("rope_swin_t", "rescale(0.5)", dict(img_size=32, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4)),
        ("lepe_cswin_t", "native", dict(img_size=64, embed_dim=16, depths=(1, 1, 1, 1), num_heads=(2, 2, 2, 2))),
        ("ape_vitdet_b", "window_aware", dict(img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2)),
    ],
)
def test_at_construction(name: str, policy: str, keywords: dict, tmp_path: object) -> None:
    model = timm.create_model(name, policy=policy, **keywords)
    chosen = policy.split("+")
    assert set(chosen) <= set(visionpe.policies(model)[: len(chosen) + 1])
    before = [str(part.policy) for part in visionpe.policy.holder.policy_holders(model.modules())]
    visionpe.set_policy(model, visionpe.policies(model)[-1])
    visionpe.set_policy(model, "default")
    assert [str(part.policy) for part in visionpe.policy.holder.policy_holders(model.modules())] == before
    torch.save(model.state_dict(), tmp_path / "model.pth")
    loaded = timm.create_model(name, policy=policy, checkpoint_path=str(tmp_path / "model.pth"), **keywords)
    assert set(chosen) <= set(visionpe.policies(loaded)[: len(chosen) + 1])
    features = timm.create_model(name, policy=policy, features_only=True, out_indices=(0,), **keywords)
    assert set(chosen) <= set(visionpe.policies(features)[: len(chosen) + 1])


def test_a_wrong_policy_at_construction() -> None:
    with pytest.raises(ValueError, match="policy='yarm' applies to no encoding of VisionTransformer; allowed: extrap"):
        timm.create_model("rope_vit_ti", policy="yarm", **TINY)


@pytest.mark.parametrize("name", ["rope_vit_ti", "swin_t", "vitdet_b"])
def test_images_are_taken_at_the_trained_size(name: str) -> None:
    options = {"num_heads": (1, 2, 4, 8), "depths": (1, 1, 1, 1), "embed_dim": 8} if "swin" in name else TINY
    options = {**options, "img_size": 56, "patch_size": 4, "num_classes": 3}
    if "vitdet" in name:
        options |= {"window_size": 7, "pretrain_img_size": 56}
    model = randomize(timm.create_model(name, **options))
    large, small = torch.randn(1, 3, 112, 84), torch.randn(1, 3, 28, 40)
    plain = seen(model, large)
    visionpe.set_policy(model, "downscale")
    for images in (large, small):
        resized = torch.nn.functional.interpolate(images, (56, 56), mode="bicubic", antialias=True)
        found = seen(model, images)
        visionpe.set_policy(model, "default")
        assert torch.equal(found, seen(model, resized))
        visionpe.set_policy(model, "downscale")
    table = visionpe.PolicyTable({56: "default", (112, 84): "downscale"})
    visionpe.set_policy(model, table)
    assert not torch.equal(seen(model, large), plain)
    visionpe.set_policy(model, "default")
    assert torch.equal(seen(model, large), plain)
    visionpe.set_policy(model, "downscale")
    one_size = torch.export.export(model, (large,)).module()
    torch.testing.assert_close(one_size(large), model(large))
    several = {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    with pytest.raises(ValueError, match="policy='downscale' cannot be exported"):
        torch.export.export(model, (large,), dynamic_shapes=(several,))


def test_an_adapted_model_downscales() -> None:
    model = visionpe.adapt(randomize(timm.create_model("vit_tiny_patch16_224", img_size=64, depth=1))).eval()
    images = torch.randn(1, 3, 96, 128)
    visionpe.set_policy(model, "downscale")
    found = seen(model, images)
    visionpe.set_policy(model, "default")
    resized = torch.nn.functional.interpolate(images, (64, 64), mode="bicubic", antialias=True)
    assert torch.equal(found, seen(model, resized))
    assert not torch.equal(found, seen(model, images))
    visionpe.set_policy(model, "downscale")
    for given, kind, what in (
        (torch.zeros(1, 3, 0, 96), ValueError, "0 x 96 pixels are too few"),
        (torch.zeros(1, 3, 96, 96).half(), TypeError, "images: torch.float16"),
        (torch.zeros(1, 4, 96, 96), ValueError, r"shape \(1, 4, 96, 96\)"),  # what was given, not what it became
    ):
        with pytest.raises(kind, match=what):
            model(given)
