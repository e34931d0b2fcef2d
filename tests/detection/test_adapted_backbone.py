"""TimmFeatures adapts models of timm's by itself: any size, policies, other encodings, files of both layouts."""

import copy

import pytest
import timm
import torch
from mmengine.runner.checkpoint import load_state_dict
from safetensors.torch import save_file
from tiny_features import drawn

import visionpe
from visionpe.detection import TimmFeatures, TimmImageClassifier

PLAIN = {"embed_dim": 24, "depth": 3, "num_heads": 2, "img_size": 64}
# name: (keywords that make it small, indices, size at which nothing is padded or resized)
CASES = {
    "vit_tiny_patch16_224": (PLAIN, (0, 1), (64, 64)),
    "vit_small_patch14_reg4_dinov2": (PLAIN | {"img_size": 56}, (1,), (56, 56)),
    "beit_base_patch16_224": (PLAIN, (0, 1), (64, 64)),
    "vit_small_patch16_dinov3": (PLAIN, (0, 1), (64, 96)),
    "vit_small_patch16_rope_mixed_224": (PLAIN, (1,), (64, 64)),
    "swin_tiny_patch4_window7_224": (
        {"embed_dim": 16, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 4, 8)}, (0, 2), (224, 448)),
    "swinv2_tiny_window8_256": (
        {"embed_dim": 16, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 4, 8)}, (0, 2), (256, 512)),
}  # fmt: skip
POSITIONS = ("pos_embed", "relative_position_bias_table", "rope.freqs", "cpb_mlp")


def build(name, **kwargs):
    options, indices, _ = CASES[name]
    return TimmFeatures(name, **{"out_indices": indices, **options, **kwargs}).eval()


def images(name, size=None):
    return torch.randn(2, 3, *(size or CASES[name][2]), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def assert_same(first, second, x):
    for a, b in zip(first(x), second(x), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5 * max(1.0, b.abs().max().item()), rtol=0)


@torch.no_grad()
def differ(first, second, x):
    return max((a - b).abs().max().item() for a, b in zip(first(x), second(x), strict=True)) > 1e-3


@pytest.fixture(params=CASES)
def name(request):
    return request.param


@pytest.fixture
def earlier(name):
    """As this class built it before it adapted anything."""
    model = drawn(build(name, adapt=False))
    assert type(model.model).__module__.startswith("timm.")
    return model


def test_it_is_adapted_and_gives_the_maps_of_timm(name, earlier):
    backbone = build(name)
    assert type(backbone.model).__module__.startswith("visionpe.")
    assert visionpe.policies(backbone.model)
    assert (backbone.channels, backbone.strides, backbone.pad_to) == (
        earlier.channels, earlier.strides, earlier.pad_to)  # fmt: skip
    assert differ(backbone, earlier, images(name))
    backbone.model.load_state_dict(earlier.model.state_dict())
    assert_same(backbone, earlier, images(name))


@pytest.mark.parametrize("way", ["whole", "prefix", "checkpoint_path", "mmengine", "classifier"])
def test_files_of_before_load(name, earlier, way, tmp_path):
    state, file = earlier.state_dict(), tmp_path / "x.pth"
    if way == "classifier":  # with blocks and a head that the features do not need
        classifier = drawn(TimmImageClassifier(name, num_classes=3, **CASES[name][0]))
        whole = classifier.model.state_dict()
        earlier.model.load_state_dict({key: whole[key] for key in earlier.model.state_dict()})
        save_file(whole, tmp_path / "x.safetensors")
        backbone = build(name, checkpoint_path=str(tmp_path / "x.safetensors"))
    elif way == "mmengine":  # as `load_from` and `--resume` do
        backbone = build(name)
        detector = torch.nn.ModuleDict({"backbone": backbone})
        load_state_dict(detector, {f"backbone.{key}": value for key, value in state.items()}, strict=True)
    elif way == "checkpoint_path":
        torch.save({"state_dict": state}, file)
        backbone = build(name, checkpoint_path=str(file))
    else:
        torch.save({"state_dict": {f"backbone.{key}": value for key, value in state.items()}}, file)
        prefix = {"prefix": "backbone."} if way == "prefix" else {}
        backbone = build(name, init_cfg={"type": "Pretrained", "checkpoint": str(file), **prefix})
        backbone.init_weights()
    assert_same(backbone, earlier, images(name))


def test_its_own_files_load_too(name, tmp_path):
    backbone, file = drawn(build(name)), tmp_path / "x.pth"
    torch.save({"state_dict": {f"backbone.{key}": value for key, value in backbone.state_dict().items()}}, file)
    again = build(name, checkpoint_path=str(file))
    assert all(value.equal(backbone.state_dict()[key]) for key, value in again.state_dict().items())


@pytest.mark.parametrize("fault", ["missing", "left over"])
def test_files_that_do_not_fit_are_refused(name, earlier, fault, tmp_path):
    state = dict(earlier.state_dict())
    if fault == "missing":
        positions = [key for key in state if any(word in key for word in POSITIONS)]
        del state[(positions or ["model.patch_embed.proj.weight"])[0]]
    else:
        state["model.blocks.99.attn.weight"] = torch.zeros(1)
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth"):
        build(name, checkpoint_path=str(tmp_path / "x.pth"))


@pytest.mark.parametrize("size", [(75, 53), (40, 200), (9, 11)])
def test_any_size_in_training_with_checkpointing(name, size):
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        backbone = build(name, with_cp=with_cp).train()
        maps = backbone(images(name, size))
        for features, stride, channels in zip(maps, backbone.strides, backbone.channels, strict=True):
            assert features.shape == (2, channels, -(-size[0] // stride), -(-size[1] // stride))
        sum(m.square().mean() for m in maps).backward()
        assert [key for key, p in backbone.named_parameters() if p.grad is None] == []
        gradients.append([p.grad for p in backbone.parameters()])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("stages", [0, 1])
def test_frozen_stages_hold_their_positions(name, stages):
    backbone = build(name, frozen_stages=stages).train()
    if hasattr(backbone.model, "blocks"):
        frozen = ["patch_embed", "pos_encoding", "cls_token", "reg_token", *["blocks.0."] * stages]
    else:
        frozen = ["patch_embed", *["layers.0."] * stages]
    for key, parameter in backbone.model.named_parameters():
        assert parameter.requires_grad is not key.startswith(tuple(frozen)), key


def test_policies_and_other_encodings(name):
    chosen = visionpe.policies(build(name).model)[1]
    default = drawn(build(name))
    other = build(name, policy=chosen)
    other.load_state_dict(default.state_dict())
    assert visionpe.policies(other.model)[0] == chosen
    if hasattr(default.model, "blocks"):  # windows have the same size on every map
        assert differ(other, default, images(name, (96, 192)))
    for spec in ("rope_axial", "none"):
        backbone = build(name, pos_encoding=spec)
        assert {m.name for m in backbone.modules() if isinstance(m, visionpe.PositionEncoding)} == {spec}
        assert all(m.isfinite().all() for m in backbone(images(name, (75, 53))))
    more = build(name, pos_encoding="+alibi")
    more.load_state_dict({**more.state_dict(), **default.state_dict()})
    assert differ(more, default, images(name))


def test_copies(name):
    backbone = build(name)
    assert_same(copy.deepcopy(backbone), backbone, images(name))


def test_weights_that_timm_names(tmp_path):
    """As `pretrained=True` loads them: the original first, then it is adapted."""
    name = "vit_small_patch16_dinov3"
    whole = drawn(timm.create_model(name, **PLAIN))
    save_file(whole.state_dict(), tmp_path / "x.safetensors")
    backbone = build(name, pretrained=True, pretrained_cfg_overlay={"file": str(tmp_path / "x.safetensors")})
    x = images(name)
    with torch.no_grad():
        wanted = whole.eval().forward_intermediates(x, indices=[0, 1], intermediates_only=True)
        for got, feature in zip(backbone(x), wanted, strict=True):
            torch.testing.assert_close(got, feature, atol=1e-5, rtol=1e-5)


def test_what_cannot_be_adapted_runs_as_timm_built_it():
    for other in ("resnet18", "convnext_atto", "pvt_v2_b0"):
        assert type(TimmFeatures(other).model).__module__.startswith("timm.")
    with pytest.raises(TypeError, match="ResNet, whose positions are not known; allowed: Beit"):
        TimmFeatures("resnet18", pos_encoding="rope_axial")
    with pytest.raises(TypeError, match="adapt='no' is no flag"):
        TimmFeatures("resnet18", adapt="no")
    with pytest.raises(ValueError, match="policy='nonsense'"):
        build("vit_tiny_patch16_224", policy="nonsense")
