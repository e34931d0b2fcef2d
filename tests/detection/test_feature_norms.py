"""Norms of the features of models that have none of their own: computed, loaded, refused."""

import pytest
import timm
import torch
from mmengine.runner.checkpoint import load_state_dict
from safetensors.torch import save_file
from torch.nn import functional

import visionpe.backbones  # noqa: F401  registers the models
from visionpe.detection import TimmFeatures

TINY = {
    "mvitv2_t": {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": 1},
    "hiera_t": {"embed_dim": 16, "stages": (1, 1, 1, 1)},
    "resnet18": {},
}
MVIT = ("mvitv2_t", TINY["mvitv2_t"])


def build(name, **kwargs):
    torch.manual_seed(0)
    return TimmFeatures(name, **TINY[name], **kwargs).eval()


def moved(model):
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


@pytest.mark.parametrize("name", TINY)
def test_each_map_is_normed_over_its_channels(name):
    normed, plain = moved(build(name, feature_norms=True, out_indices=(3, 1))), build(name, out_indices=(3, 1))
    state = normed.model.state_dict()
    plain.model.load_state_dict({key: value for key, value in state.items() if not key.startswith("norms.")})
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        for stage, found, before in zip((3, 1), normed(x), plain(x), strict=True):
            weight, bias = (state[f"norms.{stage}.{each}"] for each in ("weight", "bias"))
            expected = functional.layer_norm(before.permute(0, 2, 3, 1), weight.shape, weight, bias, 1e-6)
            torch.testing.assert_close(found, expected.permute(0, 3, 1, 2))
    assert {key for key in state if key.startswith("norms.")} == {
        f"norms.{i}.{each}" for i in (1, 3) for each in ("weight", "bias")
    }


def test_a_classifier_starts_them_at_the_identity_and_a_detector_brings_its_own(tmp_path):
    classifier = moved(timm.create_model(*MVIT[:1], num_classes=5, **MVIT[1]))
    save_file(classifier.state_dict(), tmp_path / "classifier.safetensors")
    first = build(
        "mvitv2_t", feature_norms=True, fresh_norms=True, checkpoint_path=str(tmp_path / "classifier.safetensors")
    )
    assert all(norm.weight.eq(1).all() and norm.bias.eq(0).all() for norm in first.model.norms)
    moved(first)
    torch.save({"state_dict": {f"backbone.{k}": v for k, v in first.state_dict().items()}}, tmp_path / "detector.pth")
    second = build("mvitv2_t", feature_norms=True, checkpoint_path=str(tmp_path / "detector.pth"))
    third = build("mvitv2_t", feature_norms=True)
    load_state_dict(third, first.state_dict(), strict=True)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for a, b, c in zip(first(x), second(x), third(x)):
            assert a.equal(b)
            assert a.equal(c)
    state = first.model.state_dict()
    del state["norms.2.bias"]
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(ValueError, match=r"norms\.2\.bias is missing"):
        build("mvitv2_t", feature_norms=True, checkpoint_path=str(tmp_path / "part.safetensors"))


def test_without_them_all_is_as_before(tmp_path):
    save_file(timm.create_model(*MVIT[:1], num_classes=5, **MVIT[1]).state_dict(), tmp_path / "classifier.safetensors")
    plain = build("mvitv2_t", feature_norms=False, checkpoint_path=str(tmp_path / "classifier.safetensors"))
    assert not hasattr(plain.model, "norms")
    with pytest.raises(ValueError, match="has no norms of its features"):
        build("mvitv2_t", fresh_norms=True)
    with pytest.raises(TypeError, match=r"feature_norms='yes' is no flag"):
        build("mvitv2_t", feature_norms="yes")
    with pytest.raises(TypeError, match=r"MixTransformer takes no keyword 'feature_norms': every stage ends in a norm"):
        TimmFeatures("mit_b0", feature_norms=True)
