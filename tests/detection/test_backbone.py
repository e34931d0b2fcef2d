"""TimmFeatures: the maps that necks expect, from any timm model, with weights that fit and parts that stay frozen."""

import mmdet.registry
import mmseg.registry
import pytest
import timm
import torch
from mmengine.registry import MODELS
from tiny_features import ADAPTED, TINY, build, drawn
from torch.nn import functional

from visionpe.detection import TimmFeatures
from visionpe.policy.apply import policies

OURS = ("rope_ape_vit_s", "vitdet_b", "swin_t", "cswin_t")


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("size", [(64, 96), (75, 53)])
def test_maps_of_any_size(name, size):
    backbone = build(name)
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, *size))
    assert len(maps) == len(backbone.channels) == len(backbone.strides) == len(backbone.out_indices)
    for features, channels, stride in zip(maps, backbone.channels, backbone.strides):
        assert features.shape == (1, channels, -(-size[0] // stride), -(-size[1] // stride))
        assert features.dtype == torch.float32
        assert features.isfinite().all()


# Windows of seven fill these maps; elsewhere timm pads its Swin without a mask.
WHOLE = {"swin_tiny_patch4_window7_224": (224, 448)}


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("adapt", [True, False])
def test_maps_are_those_of_timm(name, adapt):
    options = {"out_indices": (0, 1, 2, 3), **TINY[name]}
    if name in ("vit_tiny_patch16_224",):
        options["dynamic_img_size"] = True
    if name.startswith("swin_tiny"):
        options["strict_img_size"] = False
    if name in ("swin_t", "cpvt_v2_s", "cvt_13"):  # whose maps have norms in detectors alone
        options["feature_norms"] = True
    theirs = timm.create_model(name, features_only=True, feature_cls="getter", **options).eval()
    backbone = build(name, adapt=adapt)
    assert (type(backbone.model) is type(theirs.model)) is (not adapt or name not in ADAPTED)
    backbone.model.load_state_dict(theirs.model.state_dict())
    image = torch.randn(2, 3, *(WHOLE.get(name, (64, 96)) if adapt else (64, 96)))
    with torch.no_grad():
        for ours, expected in zip(backbone(image), theirs(image), strict=True):
            assert torch.allclose(ours, expected, atol=1e-6 if name not in WHOLE else 1e-5)


@pytest.mark.parametrize("name", OURS)
def test_images_are_padded_to_whole_patches_alone(name):
    backbone = drawn(build(name))
    patch = backbone.pad_to
    assert patch == (16 if "vit" in name else 4)
    image = torch.randn(1, 3, 75, 53)
    padded = functional.pad(image, (0, -53 % patch, 0, -75 % patch))
    with torch.no_grad():
        expected = backbone.model.forward_intermediates(padded, indices=backbone.out_indices, intermediates_only=True)
        for ours, theirs in zip(backbone(image), expected, strict=True):
            assert torch.equal(ours, theirs[..., : ours.shape[-2], : ours.shape[-1]])


def test_too_little_padding_is_named():
    backbone = build("convnext_atto", pad_to=1)
    with pytest.raises(ValueError, match="give pad_to=32, it is 1"), torch.no_grad():
        backbone(torch.randn(1, 3, 75, 53))


def test_every_registry_knows_it():
    config = {"type": "TimmFeatures", "model_name": "swin_t", **TINY["swin_t"]}
    for registry in (MODELS, mmdet.registry.MODELS, mmseg.registry.MODELS):
        assert type(registry.build(dict(config))) is TimmFeatures


def test_init_weights_leaves_weights_alone():
    backbone = drawn(build("swin_tiny_patch4_window7_224"))
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone.init_weights()
    assert all(value.equal(before[key]) for key, value in backbone.state_dict().items())


@pytest.mark.parametrize("name", ["resnet18", "cswin_t", "rope_ape_vit_s", "swin_tiny_patch4_window7_224"])
@pytest.mark.parametrize("stages", [-1, 0, 1])
def test_frozen_stages(name, stages):
    backbone = build(name, frozen_stages=stages, drop_path_rate=0.1).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    torch.cat([f.flatten() for f in backbone(torch.randn(2, 3, 64, 64))]).sum().backward()
    first = {"resnet18": ("conv1", "bn1"), "rope_ape_vit_s": ("patch_embed", "pos_encoding", "cls_token")}
    frozen = [] if stages < 0 else [f"model.{part}" for part in first.get(name, ("patch_embed",))]
    if stages == 1:
        block = {"resnet18": "layer1", "cswin_t": "stages.0", "rope_ape_vit_s": "blocks.0"}
        frozen.append(f"model.{block.get(name, 'layers.0')}")
    for key, parameter in backbone.named_parameters():
        assert (parameter.grad is None) == key.startswith(tuple(frozen)), key
    for key, module in backbone.named_modules():
        if key.startswith(tuple(f"{part}." for part in frozen)):
            assert not module.training, key
    assert backbone.model.training
    moved = {key.split(".")[1] for key, value in backbone.state_dict().items() if not value.equal(before[key])}
    if name == "resnet18":  # running statistics
        assert moved == {"bn1", "layer1", "layer2", "layer3"} - {part.split(".")[1] for part in frozen}


def test_too_many_frozen_stages():
    with pytest.raises(ValueError, match=r"frozen_stages=9 is too much for 'cswin_t'; allowed: -1 to 4"):
        build("cswin_t", frozen_stages=9)


@pytest.mark.parametrize("name", ["cswin_t", "swin_t"])
def test_every_trained_parameter_gets_a_gradient(name):
    backbone = build(name, out_indices=(1, 3)).train()
    torch.cat([f.flatten() for f in backbone(torch.randn(1, 3, 64, 64))]).sum().backward()
    assert [key for key, p in backbone.named_parameters() if p.requires_grad and p.grad is None] == []
    assert all(p.requires_grad for p in backbone.parameters())
    norms = {key for key, _ in backbone.named_parameters() if key.startswith("model.norms.")}  # of other stages none
    assert norms == {f"model.norms.{i}.{key}" for i in (1, 3) for key in ("weight", "bias")}


@pytest.mark.parametrize("name", ["resnet18", "cswin_t", "vitdet_b"])
def test_checkpointing_changes_nothing_but_memory(name):
    image, gradients, calls = torch.randn(2, 3, 64, 64), [], []
    for with_cp in (False, True):
        torch.manual_seed(0)
        backbone = build(name, with_cp=with_cp).eval()
        block = {"resnet18": "layer2", "cswin_t": "stages", "vitdet_b": "blocks"}[name]
        counted = getattr(backbone.model, block)[-1]
        inner = counted.blocks[0] if name == "cswin_t" else counted
        runs = []
        inner.register_forward_pre_hook(lambda *_, runs=runs: runs.append(1))
        sum(f.square().mean() for f in backbone(image)).backward()
        gradients.append([p.grad for p in backbone.parameters() if p.requires_grad])
        calls.append(len(runs))
    assert calls == [1, 2]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_autocast_is_of_the_backbone_alone():
    backbone, seen = build("resnet18", autocast="bfloat16"), []
    backbone.model.layer1.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        half = backbone(image)
        backbone.autocast = None
        full = backbone(image)
    assert seen == [torch.bfloat16, torch.float32]
    for a, b in zip(half, full, strict=True):
        assert a.dtype == torch.float32
        assert 0 < (a - b).abs().max() < 0.1 * b.abs().max()
    with pytest.raises(ValueError, match="autocast='float8'"):
        build("resnet18", autocast="float8")


def test_an_outer_autocast_gives_whole_features_too():
    backbone = build("resnet18")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert {features.dtype for features in backbone(torch.randn(1, 3, 64, 64))} == {torch.float32}


def test_policy_reaches_every_encoding_that_knows_it():
    default = build("rope_ape_vit_s")
    chosen = [name for part in default.model.pos_encoding.parts for name in part.policies][-1]
    assert chosen in policies(default.model)
    backbone = build("rope_ape_vit_s", policy=chosen)
    assert chosen in [part.policy for part in backbone.model.pos_encoding.parts]
    with pytest.raises(ValueError, match=r"policy='ntk'.*allowed: none"):
        build("resnet18", policy="ntk")


def test_drop_path_rate():
    def largest(rate):
        return max(getattr(m, "drop_prob", 0) or 0 for m in build("rope_ape_vit_s", drop_path_rate=rate).modules())

    assert largest(0.25) == pytest.approx(0.25)
    assert largest(None) == 0


@pytest.mark.parametrize(
    ("name", "patch", "strides"),
    [("rope_ape_vit_s", (16, 8), [(16, 8)]), ("vitdet_b", (8, 16), [(8, 16)]), ("swin_t", (4, 2), [(8, 4), (16, 8)])],
)
def test_patches_that_are_not_square(name, patch, strides):
    """The map is whole, whatever its longer step; images that the patch does not divide are padded."""
    indices = {"vitdet_b": (3,), "swin_t": (1, 2)}.get(name, (1,))
    backbone = build(name, patch_size=patch, img_size=64, out_indices=indices)
    assert backbone.strides == strides
    x = torch.randn(1, 3, 64, 96)
    whole = backbone.model.forward_intermediates(x, indices=indices, intermediates_only=True)
    for got, feature in zip(backbone(x), whole, strict=True):
        torch.testing.assert_close(got, feature)
    for got, (down, right) in zip(backbone(torch.randn(1, 3, 50, 70)), strides):
        assert got.shape[-2:] == (-(-50 // down), -(-70 // right))
    assert build(name, patch_size=patch, img_size=64, out_indices=indices, strides=[list(s) for s in strides])


@pytest.mark.parametrize("name", ["swin_t", "resnet18", "convnext_atto", "cswin_t"])
def test_features_in_the_order_asked_for(name):
    """Each is cropped by its own stride and comes with its own channels."""
    x = torch.randn(1, 3, 70, 90)
    backbone = build(name, out_indices=(3, 1))
    wanted = backbone.model.forward_intermediates(
        torch.nn.functional.pad(x, (0, -90 % backbone.pad_to, 0, -70 % backbone.pad_to)), indices=(1, 3)
    )[1][::-1]
    for got, feature, stride, channels in zip(backbone(x), wanted, backbone.strides, backbone.channels, strict=True):
        assert got.shape == (1, channels, -(-70 // stride), -(-90 // stride))
        torch.testing.assert_close(got, feature[..., : got.shape[2], : got.shape[3]])


def test_mistakes_are_named():
    for option, value in (("pad_to", 0), ("pad_to", "32"), ("frozen_stages", -2), ("frozen_stages", 0.5)):
        with pytest.raises((ValueError, TypeError), match=f"{option}="):
            build("resnet18", **{option: value})
    for indices in ("01", (0.5,), (), 0, -1, True, 1.0):
        with pytest.raises((ValueError, TypeError), match=r"out_indices=.*; allowed"):
            build("resnet18", out_indices=indices)
    with pytest.raises(ValueError, match=r"model_name='resnet19' is unknown to timm; did you mean"):
        TimmFeatures("resnet19")
    with pytest.raises(ValueError, match=r"'resnet18' with out_indices=\(0, 7\)"):
        build("resnet18", out_indices=(0, 7))
    with pytest.raises(ValueError, match=r"out_indices=9 must be less; allowed: 1 to 4"):
        build("swin_t", out_indices=9)
    with pytest.raises(ValueError, match=r"output_stride=7 is unknown; allowed: 8, 16, 32"):
        build("resnet18", output_stride=7)
    with pytest.raises(
        ValueError, match=r"channels=\[1, 2\].*'resnet18', which has \[64, 128\] at out_indices=\(1, 2\)"
    ):
        build("resnet18", out_indices=(1, 2), channels=[1, 2])
    with pytest.raises(ValueError, match=r"strides=\[4\].*\[16\]"):
        build("rope_ape_vit_s", strides=[4])
    with pytest.raises(TypeError, match="no_such_option"):
        build("resnet18", no_such_option=1)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("indices", [1, 2, (1, 0), (1, 1, 0)])
def test_out_indices_as_timm_takes_them(name, indices):
    """One number is so many of the last; any order, and one map twice."""
    if name == "rope_ape_vit_s":
        indices = indices if indices != 2 else 1  # it has two blocks
    count = len(build(name, out_indices=1).model.feature_info)
    places = tuple(range(count - indices, count)) if isinstance(indices, int) else indices
    torch.manual_seed(0)
    backbone, image = build(name, out_indices=indices), torch.randn(1, 3, 64, 64)
    assert backbone.out_indices == places
    whole = backbone.model.forward_intermediates(image, indices=sorted(set(places)), intermediates_only=True)
    for got, place, channels in zip(backbone(image), places, backbone.channels, strict=True):
        torch.testing.assert_close(got, whole[sorted(set(places)).index(place)])
        assert got.shape[1] == channels


@pytest.mark.parametrize("norm_eval", [False, True])
def test_norm_eval_keeps_the_statistics_and_trains_the_rest(norm_eval):
    backbone = build("resnet18", norm_eval=norm_eval, out_indices=(1,)).train()
    before = {key: value.clone() for key, value in backbone.named_buffers()}
    backbone(torch.randn(2, 3, 64, 64))[0].sum().backward()
    assert all(value.equal(before[key]) for key, value in backbone.named_buffers()) == norm_eval
    assert backbone.model.bn1.weight.grad is not None
    assert backbone.model.layer1.training
    assert backbone.model.bn1.training != norm_eval
    assert not backbone.eval().model.bn1.training
    with pytest.raises(TypeError, match="norm_eval='no' is no flag"):
        build("resnet18", norm_eval="no")


@pytest.mark.parametrize("name", ["swin_t", "cswin_t"])
def test_features_of_pyramids_have_norms_by_default(name):
    assert len(build(name).model.norms) == 4
    assert build(name, feature_norms=False).model.norms is None
    plain = timm.create_model(name, features_only=True, **TINY[name]).model
    assert (plain.norms is None) is (name == "swin_t")  # as timm's own Swin
