"""CvT: the authors' forward pass written out in float64, files of two layouts, the class token."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from conftest import randomize
from torch import Tensor, nn

SMALL: dict[str, Any] = dict(
    img_size=64, embed_dim=(16, 32, 48), num_heads=(1, 2, 3), depths=(1, 2, 2), mlp_ratios=(4, 2, 3), num_classes=5
)
LEVELS = [(64, 64), (40, 56), (61, 91)]
RULES = [
    (r"patch_embed\.", "stage0.patch_embed."),
    (r"stages\.(\d)\.downsample\.", r"stage\1.patch_embed."),
    (r"stages\.(\d)\.", r"stage\1."),
    (r"head\.fc\.", "head."),
]
# Of what the authors call a part of a block, the name in transformers.
WORDS = {
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
}
WORDS |= {f"attn.proj_{word[0]}": f"attention.attention.projection_{word}" for word in ("query", "key", "value")}
for _word in ("query", "key", "value"):
    for _part, _theirs in (("conv", "convolution"), ("bn", "normalization")):
        _where = f"attention.attention.convolution_projection_{_word}.convolution_projection.{_theirs}"
        WORDS[f"attn.conv_proj_{_word[0]}.{_part}"] = _where


def build(**kwargs: Any) -> Any:
    return timm.create_model("cvt_13", **{**SMALL, **kwargs}).eval()


def drawn(**kwargs: Any) -> Any:
    """A model whose batch norms have seen something."""
    model = randomize(build(**kwargs))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.3, 2)
    return model


def by_authors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our keys in the words of microsoft/CvT."""
    out = {}
    for key, value in state.items():
        for pattern, theirs in RULES:
            key = re.sub("^" + pattern, theirs, key)
        out[key] = value
    return out


def by_hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The authors' keys in the words of transformers' Cvt."""
    out = {}
    for key, value in state.items():
        where, _, name = key.rpartition(".")
        if match := re.fullmatch(r"stage(\d)\.blocks\.(\d+)\.(.+)", where):
            key = f"cvt.encoder.stages.{match[1]}.layers.{match[2]}.{WORDS[match[3]]}.{name}"
        elif match := re.fullmatch(r"stage(\d)\.patch_embed\.(proj|norm)", where):
            part = {"proj": "projection", "norm": "normalization"}[match[2]]
            key = f"cvt.encoder.stages.{match[1]}.embedding.convolution_embeddings.{part}.{name}"
        elif key.startswith("stage"):
            key = "cvt.encoder.stages." + key.removeprefix("stage")
        else:
            key = f"{ {'norm': 'layernorm', 'head': 'classifier'}[where] }.{name}"
        out[key] = value
    return out


def official(state: dict[str, Tensor], x: Tensor, stride_kv: int = 2) -> tuple[list[Tensor], Tensor]:
    """The authors' forward pass in float64, from their keys (microsoft/CvT, lib/models/cls_cvt.py at 56984ed).

    Facts relied on: patches 7 every 4 padded by 2, then 3 every 2 padded by 1, all norms add 1e-5; depthwise 3 x 3
    convolutions without bias and batch norms ahead of the projections, every 2 for keys and values; the class token
    joins in the last stage and passes the convolutions by; logits times the inverse root of the width of all heads
    together; the MLP's activation is x * sigmoid(1.702 x); the classifier reads the normed class token.
    """
    w = {key: value.double() for key, value in state.items()}
    x, features = x.double(), []

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

    def convolved(x: Tensor, name: str, stride: int) -> Tensor:
        x = F.conv2d(x, w[f"{name}.conv.weight"], stride=stride, padding=1, groups=x.shape[1])
        mean, var, weight, bias = (
            w[f"{name}.bn.{key}"][:, None, None] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 1e-5).sqrt() * weight + bias).flatten(2).transpose(1, 2)

    for stage, (depth, heads) in enumerate(zip(SMALL["depths"], SMALL["num_heads"])):
        where, first = f"stage{stage}", stage == 0
        shape = {"stride": 4 if first else 2, "padding": 2 if first else 1}
        x = F.conv2d(x, w[f"{where}.patch_embed.proj.weight"], w[f"{where}.patch_embed.proj.bias"], **shape)
        height, width = x.shape[2:]
        x = norm(x.flatten(2).transpose(1, 2), f"{where}.patch_embed.norm")
        token = w.get(f"{where}.cls_token")
        extra = 0 if token is None else 1
        x = x if token is None else torch.cat((token.expand(len(x), -1, -1), x), dim=1)
        for each in range(depth):
            block = f"{where}.blocks.{each}"
            y, found = norm(x, f"{block}.norm1"), []
            on_map = y[:, extra:].transpose(1, 2).unflatten(2, (height, width))
            for letter, stride in (("q", 1), ("k", stride_kv), ("v", stride_kv)):
                tokens = torch.cat((y[:, :extra], convolved(on_map, f"{block}.attn.conv_proj_{letter}", stride)), dim=1)
                found.append(linear(tokens, f"{block}.attn.proj_{letter}").unflatten(-1, (heads, -1)).transpose(1, 2))
            q, k, v = found
            weights = (q @ k.transpose(2, 3) * y.shape[-1] ** -0.5).softmax(-1)
            x = x + linear((weights @ v).transpose(1, 2).flatten(2), f"{block}.attn.proj")
            y = linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")
            x = x + linear(y * (1.702 * y).sigmoid(), f"{block}.mlp.fc2")
        tokens, x = x, x[:, extra:].transpose(1, 2).unflatten(2, (height, width))
        features.append(x)
    pooled = norm(tokens, "norm")
    return features, linear(pooled[:, 0] if extra else pooled.mean(1), "head")


@pytest.mark.parametrize("options", [{}, {"class_token": False}, {"stride_kv": 1}, {"qkv_bias": False}])
@pytest.mark.parametrize("size", LEVELS)
def test_parity_with_the_authors_code(options: dict[str, Any], size: tuple[int, int]) -> None:
    source = drawn(**options)
    for stage in source.stages:
        for block in stage.blocks:  # so that it matters how logits are scaled
            block.attn.proj_q.weight.data.mul_(8)
    state = by_authors(source.state_dict())
    model = build(**options)
    model.load_state_dict({"state_dict": state})
    x = 0.2 * torch.randn(2, 3, *size)
    maps, logits = official(state, x, options.get("stride_kv", 2))
    with torch.no_grad():
        for ours, theirs in zip(model.forward_intermediates(x, intermediates_only=True), maps):
            torch.testing.assert_close(ours, theirs.float(), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model(x), logits.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", ["authors", "hugging face", "ours"])
def test_files(layout: str, tmp_path: Path) -> None:
    source, x = drawn(), torch.randn(1, 3, 48, 80)
    state = source.state_dict() if layout == "ours" else by_authors(source.state_dict())
    if layout == "hugging face":
        state = by_hugging_face(state)
        assert "cvt.encoder.stages.2.cls_token" in state
    torch.save(state, tmp_path / "cvt.pth")
    options: dict[str, Any] = {"checkpoint_path": str(tmp_path / "cvt.pth")}
    with torch.no_grad():
        assert torch.equal(build(**options)(x), source(x))
        features = build(features_only=True, out_indices=(0, 1), **options)(x)
        for ours, theirs in zip(features, source.forward_intermediates(x, intermediates_only=True)):
            assert torch.equal(ours, theirs)


def test_class_token() -> None:
    """It joins in the last stage, the classifier reads it alone, and no encoding moves it."""
    model, x = drawn(pos_encoding="rope_mixed+rpb+ape"), torch.randn(2, 3, 40, 56)
    assert [stage.cls_token is not None for stage in model.stages] == [False, False, True]
    assert model.no_weight_decay() >= {"stages.2.cls_token"}
    with torch.no_grad():
        tokens = model.forward_features(x)
        assert tokens.shape == (2, 1 + 3 * 4, 48)
        assert model.output_fmt == "NLC"
        torch.testing.assert_close(model.forward_head(tokens, pre_logits=True), tokens[:, 0])
        (last,) = model.forward_intermediates(x, [2], norm=True, intermediates_only=True)
        torch.testing.assert_close(last.flatten(2).transpose(1, 2), tokens[:, 1:])
    plain = drawn(class_token=False)
    with torch.no_grad():
        final = plain.forward_features(x)
        assert final.shape == (2, 3, 4, 48)
        torch.testing.assert_close(plain.forward_head(final, pre_logits=True), final.mean((1, 2)))
    headed = drawn(feature_norms=True)
    with torch.no_grad():
        torch.testing.assert_close(
            headed.forward_features(x)[:, 0], headed.forward_head(headed.forward_features(x), True)
        )
        headed(x)


def test_an_encoding_that_knows_prefix_tokens_knows_them_in_the_last_stage_alone() -> None:
    model = drawn(pos_encoding={"name": "rpb", "prefix_slots": 1}, stride_kv=1).train()
    assert [key.split(".")[1] for key, _ in model.named_parameters() if key.endswith("prefix_table")] == ["2"]
    model(torch.randn(2, 3, 40, 56)).square().sum().backward()
    assert model.stages[2].pos_encoding.inside["whole"].rpb.prefix_table.grad.abs().max() > 0


def test_stochastic_depth_is_in_the_last_stage_alone() -> None:
    model = build(drop_path_rate=0.3, depths=(1, 2, 3))
    rates = [[getattr(block.drop_path1, "drop_prob", 0.0) for block in stage.blocks] for stage in model.stages]
    assert rates[:2] == [[0.0], [0.0, 0.0]]
    torch.testing.assert_close(torch.tensor(rates[2]), torch.tensor([0.0, 0.15, 0.3]))


def test_published_sizes() -> None:
    """Parameters as in table 3 of the paper, millions; W24 is published at 384 pixels."""
    for size, millions, side in (("13", 20.0, 224), ("21", 31.5, 224), ("w24", 277, 384)):
        with torch.device("meta"):
            model = timm.create_model(f"cvt_{size}")
        assert abs(sum(p.numel() for p in model.parameters()) / 1e6 - millions) < 0.5
        assert model.trained_img_size == (side, side)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pos_encoding": "rope_mixed"}, r"CvT with pos_encoding='rope_mixed'; missing.*freqs"),
        ({"class_token": False}, r"not in the model: stages\.2\.cls_token"),
        ({"qkv_kernel": 5}, r"of another shape: stages\.0\.blocks\.0\.attn\.conv_proj_k\.conv\.weight"),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        build(**changes).load_state_dict(by_authors(build().state_dict()))


@pytest.mark.parametrize(
    "options", [{"stride_kv": 0}, {"stride_kv": (2, 2)}, {"qkv_kernel": 2}, {"paddings": (2, 1)}, {"class_token": "no"}]
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=f"{next(iter(options))}="):
        build(**options)
