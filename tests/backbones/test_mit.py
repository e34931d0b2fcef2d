"""MiT: the same as mmseg's, by files of three layouts, and by a plain formulation of the authors' code in float64."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from conftest import randomize
from timm.models import group_parameters
from torch import Tensor

from visionpe.backbones.mit.mit_models import SIZES

SMALL: dict[str, Any] = dict(
    img_size=64,
    embed_dim=(16, 16, 32, 32),
    num_heads=(1, 1, 2, 2),
    depths=(2, 1, 2, 1),
    mlp_ratios=(4, 4, 4, 4),
    sr_ratios=(4, 2, 2, 1),
    num_classes=5,
)
LEVELS = [(64, 64), (40, 56), (61, 90)]
RULES = [
    (r"patch_embed\.", "patch_embed1."),
    (r"stages\.(\d)\.downsample\.", lambda m: f"patch_embed{int(m[1]) + 1}."),
    (r"stages\.(\d)\.blocks\.(\d+)\.mlp\.dwconv\.", lambda m: f"block{int(m[1]) + 1}.{m[2]}.mlp.dwconv.dwconv."),
    (r"stages\.(\d)\.blocks\.", lambda m: f"block{int(m[1]) + 1}."),
    (r"stages\.(\d)\.norm\.", lambda m: f"norm{int(m[1]) + 1}."),
    (r"head\.fc\.", "head."),
]


def build(**kwargs: Any) -> Any:
    return timm.create_model("mit_b0", **{**SMALL, **kwargs}).eval()


def by_authors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our keys in the words of NVlabs/SegFormer."""
    out = {}
    for key, value in state.items():
        for pattern, theirs in RULES:
            key = re.sub("^" + pattern, theirs, key)
        out[key] = value
    return out


def by_hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The authors' keys in the words of transformers' Segformer."""
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        where, _, name = key.rpartition(".")
        if match := re.fullmatch(r"patch_embed(\d)\.(proj|norm)", where):
            where = f"encoder.patch_embeddings.{int(match[1]) - 1}." + {"proj": "proj", "norm": "layer_norm"}[match[2]]
        elif match := re.fullmatch(r"norm(\d)", where):
            where = f"encoder.layer_norm.{int(match[1]) - 1}"
        elif match := re.fullmatch(r"block(\d)\.(\d+)\.(.+)", where):
            rest = match[3]
            if rest == "attn.kv":
                for part, half in zip(("key", "value"), value.chunk(2)):
                    block = f"segformer.encoder.block.{int(match[1]) - 1}.{match[2]}"
                    out[f"{block}.attention.self.{part}.{name}"] = half
                continue
            words = {"attn.q": "attention.self.query", "attn.sr": "attention.self.sr"}
            words |= {"attn.norm": "attention.self.layer_norm", "attn.proj": "attention.output.dense"}
            words |= {
                "norm1": "layer_norm_1",
                "norm2": "layer_norm_2",
                "mlp.fc1": "mlp.dense1",
                "mlp.fc2": "mlp.dense2",
            }
            where = f"encoder.block.{int(match[1]) - 1}.{match[2]}.{words.get(rest, rest)}"
        out["classifier." + name if where == "head" else f"segformer.{where}.{name}"] = value
    return out


def official(state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """The authors' forward pass in float64, from their keys (NVlabs/SegFormer, mix_transformer.py at 073b02d).

    Facts relied on: patches 7 every 4 and 3 every 2, padded by half of their side; norms of patches and of reduced
    keys add 1e-5, those of blocks and stages 1e-6; keys ahead of values in one projection; logits times the inverse
    root of the width of a head; a depthwise convolution between the first layer of the MLP and GELU; the norm of a
    stage comes ahead of the next one.
    """
    w = {key: value.double() for key, value in state.items()}
    x, features = x.double(), []

    def norm(x: Tensor, name: str, eps: float) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def conv(x: Tensor, name: str, **options: Any) -> Tensor:
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], **options)

    for stage, (depth, heads, cell) in enumerate(zip(SMALL["depths"], SMALL["num_heads"], SMALL["sr_ratios"]), start=1):
        side = 7 if stage == 1 else 3
        x = conv(x, f"patch_embed{stage}.proj", stride=4 if stage == 1 else 2, padding=side // 2)
        height, width = x.shape[2:]
        x = norm(x.flatten(2).transpose(1, 2), f"patch_embed{stage}.norm", 1e-5)
        as_map = lambda t: t.transpose(1, 2).unflatten(2, (height, width))  # noqa: B023, E731
        for each in range(depth):
            block = f"block{stage}.{each}"
            y = norm(x, f"{block}.norm1", 1e-6)
            q, cells = linear(y, f"{block}.attn.q"), y
            if cell > 1:
                cells = conv(as_map(y), f"{block}.attn.sr", stride=cell).flatten(2).transpose(1, 2)
                cells = norm(cells, f"{block}.attn.norm", 1e-5)
            k, v = linear(cells, f"{block}.attn.kv").chunk(2, dim=-1)
            q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
            weights = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1)
            x = x + linear((weights @ v).transpose(1, 2).flatten(2), f"{block}.attn.proj")
            y = as_map(linear(norm(x, f"{block}.norm2", 1e-6), f"{block}.mlp.fc1"))
            y = conv(y, f"{block}.mlp.dwconv.dwconv", padding=1, groups=y.shape[1]).flatten(2).transpose(1, 2)
            x = x + linear(F.gelu(y), f"{block}.mlp.fc2")
        x = as_map(norm(x, f"norm{stage}", 1e-6))
        features.append(x)
    return [*features, linear(x.mean((2, 3)), "head")]


@pytest.fixture(scope="module")
def source() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return by_authors(randomize(build()).state_dict())


@pytest.mark.parametrize("layout", ["authors", "authors in a segmentor", "hugging face", "ours"])
@pytest.mark.parametrize("size", LEVELS)
def test_parity_with_the_authors_code(
    layout: str, size: tuple[int, int], source: dict[str, Tensor], tmp_path: Path
) -> None:
    segmentor = layout == "authors in a segmentor"
    state = by_hugging_face(source) if layout == "hugging face" else source
    if segmentor:
        state = {f"backbone.{key}": value for key, value in state.items() if not key.startswith("head.")}
        state["decode_head.conv_seg.weight"] = torch.zeros(3)
    if layout == "ours":
        twin = build()
        twin.load_state_dict(source)
        state = twin.state_dict()
    torch.save({"state_dict": state}, tmp_path / "mit.pth")
    path = str(tmp_path / "mit.pth")
    x = 0.05 * torch.randn(2, 3, *size)  # faint, so that what norms add to variances shows
    *maps, logits = official(source, x)
    with torch.no_grad():
        features = build(features_only=True, checkpoint_path=path)(x)
        for ours, theirs in zip(features, maps):
            torch.testing.assert_close(ours, theirs.float(), atol=1e-5, rtol=1e-5)
        if not segmentor:
            torch.testing.assert_close(build(checkpoint_path=path)(x), logits.float(), atol=1e-5, rtol=1e-5)


def test_parity_with_mmseg(tmp_path: Path) -> None:
    """Its files have another layout, and its code adds 1e-6 in every norm, which such a file chooses."""
    mit = pytest.importorskip("mmseg.models.backbones.mit")
    theirs = mit.MixVisionTransformer(
        embed_dims=16, num_layers=[1, 2, 1, 1], num_heads=[1, 2, 2, 3], sr_ratios=[4, 2, 2, 1], mlp_ratio=2
    )
    randomize(theirs)
    torch.save({"state_dict": {f"backbone.{k}": v for k, v in theirs.state_dict().items()}}, tmp_path / "segformer.pth")
    options: dict[str, Any] = dict(
        depths=(1, 2, 1, 1), embed_dim=(16, 32, 32, 48), num_heads=(1, 2, 2, 3), mlp_ratio=2.0
    )
    options |= dict(mlp_ratios=None, features_only=True, checkpoint_path=str(tmp_path / "segformer.pth"))
    ours, kept = build(**options), build(**options, embed_norm_eps=1e-5)
    assert (ours.model.embed_norm_eps, kept.model.embed_norm_eps) == (1e-6, 1e-5)
    for size in LEVELS:
        x = 0.02 * torch.randn(2, 3, *size)
        with torch.no_grad():
            wanted = theirs(x)
            for mine, its in zip(ours(x), wanted):
                torch.testing.assert_close(mine, its, atol=1e-5, rtol=1e-6)
            assert (kept(x)[-1] - wanted[-1]).abs().max() > 2e-5
    assert ours.model.saved_arguments()["embed_norm_eps"] == 1e-6
    ours.model.load_state_dict(by_authors(ours.model.state_dict()))
    assert ours.model.embed_norm_eps == 1e-5


def test_published_sizes() -> None:
    """Parameters of the encoders as in table 1 and appendix A of the paper, millions, without the classifier."""
    for size, millions in (("b0", 3.4), ("b1", 13.1), ("b2", 24.2), ("b3", 44.0), ("b4", 60.8), ("b5", 81.4)):
        with torch.device("meta"):
            model = timm.create_model(f"mit_{size}", num_classes=0)
        assert abs(sum(p.numel() for p in model.parameters()) / 1e6 - millions) < 0.15, size
    assert set(SIZES) == {f"b{i}" for i in range(6)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pos_encoding": "rope_mixed"}, r"MiT with pos_encoding='rope_mixed'; missing.*freqs"),
        ({"sr_ratios": (4, 2, 1, 1)}, r"not in the model: stages\.2\.blocks\.0\.attn\.norm"),
        ({"patch_sizes": (7, 3, 5, 3)}, r"of another shape: stages\.2\.downsample\.proj\.weight"),
    ],
)
def test_refusals(changes: dict[str, Any], message: str, source: dict[str, Tensor]) -> None:
    with pytest.raises(RuntimeError, match=message):
        build(**changes).load_state_dict(source)


def test_bad_options() -> None:
    with pytest.raises(TypeError, match="MixTransformer takes no keyword 'feature_norms': every stage ends in a norm"):
        build(feature_norms=True)
    for name, value in (("embed_norm_eps", 0), ("strides", (4, 2)), ("patch_sizes", (7, 3, 0, 3))):
        with pytest.raises(ValueError, match=f"{name}="):
            build(**{name: value})


def test_the_norm_of_a_stage_learns_as_its_last_block() -> None:
    model = build()
    layers = group_parameters(model, model.group_matcher(), reverse=True)
    for stage, depth in enumerate(model.depths):
        last = layers[f"stages.{stage}.blocks.{depth - 1}.mlp.fc1.weight"]
        assert layers[f"stages.{stage}.norm.weight"] == last
