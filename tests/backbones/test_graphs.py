"""``torch.fx`` graphs of models, and the one sentence where a graph cannot be made; timm's layout of features."""

from __future__ import annotations

import pytest
import timm
import torch
from conftest import ENCODINGS, randomize, tiny_spec
from tiny_backbones import MODELS
from torchvision.models.feature_extraction import create_feature_extractor

from visionpe import create_encoding

CASES = [("none_vit_ti", name) for name in ENCODINGS] + [
    (family, spec)
    for family in ("swin_t", "cswin_t", "crossformer_t", "rmt_t")
    for spec in ("rpb+cpe", "rope_mixed", "ape+lepe")
]


def build(family: str, spec: str, **keywords: object) -> torch.nn.Module:
    keywords = MODELS[family] | keywords
    return randomize(timm.create_model(family, pos_encoding=tiny_spec(spec), num_classes=3, **keywords))


@pytest.mark.parametrize(("family", "spec"), CASES)
def test_fx_graphs_serve_every_size(family: str, spec: str) -> None:
    model = build(family, spec)
    graph = torch.fx.symbolic_trace(model)
    for shape in ((2, 3, 32, 32), (1, 3, 40, 32)):
        x = torch.randn(shape)
        torch.testing.assert_close(graph(x), model(x), atol=0, rtol=0)
    graph(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("family", ["none_vit_ti", "swin_t", "cswin_t", "rmt_t"])
def test_fx_graphs_of_features(family: str) -> None:
    features = timm.create_model(family, pos_encoding="ape", features_only=True, out_indices=(0, 1), **MODELS[family])
    graph, x = torch.fx.symbolic_trace(features.eval()), torch.randn(2, 3, 40, 32)
    for found, wanted in zip(graph(x), features(x), strict=True):
        torch.testing.assert_close(found, wanted, atol=0, rtol=0)


def test_torchvision_takes_features_at_any_block() -> None:
    x = torch.randn(2, 3, 32, 32)
    vit = build("none_vit_ti", "rope_mixed+ape")
    found = create_feature_extractor(vit, ["blocks.0", "norm"])(x)
    torch.testing.assert_close(found["norm"], vit.forward_features(x), atol=0, rtol=0)
    assert found["blocks.0"].shape == found["norm"].shape
    swin = build("swin_t", "rpb")
    first = create_feature_extractor(swin, ["stages.0"])(x)["stages.0"]
    wanted = swin.forward_intermediates(x, indices=[0], output_fmt="NHWC", intermediates_only=True)[0]
    torch.testing.assert_close(first, wanted, atol=0, rtol=0)


def test_an_attention_mask_goes_through_a_graph() -> None:
    model, x = build("none_vit_ti", "rpb"), torch.randn(1, 3, 32, 32)
    mask = torch.ones(1, 1, 17, 17, dtype=torch.bool).tril()
    graph = torch.fx.symbolic_trace(model)
    torch.testing.assert_close(graph(x, mask), model(x, mask), atol=0, rtol=0)
    assert (graph(x, mask) - graph(x)).abs().max() > 1e-6


@pytest.mark.parametrize("family", [*MODELS, "swin3d_s"])
def test_torchscript_is_refused_in_one_sentence(family: str) -> None:
    model = timm.create_model(family, pos_encoding="none") if family == "swin3d_s" else build(family, "none")
    with pytest.raises(NotImplementedError, match=r"torch\.jit\.script cannot compile \w+: .*allowed: torch\.export"):
        torch.jit.script(model)


def test_an_encoding_in_a_scripted_module_is_refused_too() -> None:
    holder = torch.nn.Sequential(torch.nn.Linear(2, 2), create_encoding("rpb", dim=8, num_heads=2))
    with pytest.raises(NotImplementedError, match=r"torch\.jit\.script cannot compile RelativePositionBias"):
        torch.jit.script(holder)


def test_fx_is_refused_where_windows_divide_the_map_in_the_model() -> None:
    with pytest.raises(NotImplementedError, match=r"torch\.fx cannot trace WindowedVisionTransformer: .*allowed:"):
        torch.fx.symbolic_trace(build("vitdet_b", "none"))


@pytest.mark.parametrize("family", ["swin_t", "cswin_t"])
def test_pyramids_say_the_layout_of_their_features(family: str) -> None:
    model, x = build(family, "none"), torch.randn(1, 3, 64, 64)
    assert model.output_fmt == "NHWC"  # as timm's Swin
    assert model.forward_features(x).shape[-1] == model.num_features
    levels = tuple(range(len(model.stages)))
    features = timm.create_model(family, features_only=True, out_indices=levels, **MODELS[family])
    assert features.output_fmt == "NCHW"
    assert [y.shape[1] for y in features(x)] == features.feature_info.channels()
