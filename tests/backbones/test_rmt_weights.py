"""Published RMT files: every layout loads, into classifiers and dense models, and what does not fit is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import randomize
from reference_files import read
from test_rmt import TINY, image
from torch import Tensor

import visionpe
from visionpe.utils.errors import MisfitError

RULES = [
    (r"patch_embed\.layers", "patch_embed.proj"),
    (r"stages\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample"),
    (r"norms\.", "extra_norms."),
    (r"head\.fc", "head"),
    (r"head\.aux", "aux_head"),
    (r"head\.(proj|norm)", r"\1"),
    (r"stages\.(\d)\.pos_encoding\.map\.cpe\.convs\.(\d+)", r"layers.\1.blocks.\2.pos.conv"),
    (r"stages\.(\d)\.pos_encoding\.inside\.whole\.lepe\.convs\.(\d+)", r"layers.\1.blocks.\2.retention.lepe.conv"),
    (r"stages\.(\d)\.blocks\.(\d+)\.ls(\d)\.gamma", r"layers.\1.blocks.\2.gamma_\3"),
    (r"(stages\.\d\.blocks\.\d+)\.norm1", r"\1.retention_layer_norm"),
    (r"(stages\.\d\.blocks\.\d+)\.norm2", r"\1.final_layer_norm"),
    (r"(stages\.\d\.blocks\.\d+)\.mlp\.conv", r"\1.ffn.dwconv.conv"),
    (r"(stages\.\d\.blocks\.\d+)\.mlp", r"\1.ffn"),
    (r"(stages\.\d\.blocks\.\d+)\.attn\.proj", r"\1.retention.out_proj"),
    (r"(stages\.\d\.blocks\.\d+)\.attn\.qkv", r"\1.retention.qkv"),
    (r"stages", "layers"),
]


def official(model: torch.nn.Module) -> dict[str, Tensor]:
    """The weights of a model in the official words, with the buffers that the official code keeps."""
    out: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        for pattern, theirs in RULES:
            key = re.sub("^" + pattern, theirs, key)
        if ".qkv." in key:
            for name, part in zip("qkv", value.chunk(3)):
                out[key.replace("qkv", f"{name}_proj")] = part
        else:
            out[key] = value[None, None, None] if "gamma" in key else value
    for i, stage in enumerate(model.stages):
        inside: Any = stage.pos_encoding.inside
        kind = "rows" if stage.decomposed else "whole"
        freqs = inside["whole"]["rope_raster"].frequencies(0, torch.device("cpu"))
        out[f"layers.{i}.Relpos.angle"] = freqs.flatten().repeat_interleave(2)
        out[f"layers.{i}.Relpos.decay"] = torch.tensor(inside[kind]["manhattan"].decays())
    return out


def source(**kwargs: Any) -> torch.nn.Module:
    return randomize(timm.create_model("rmt_t", **{**TINY, **kwargs}))


def saved(state: Any, path: Path) -> str:
    torch.save(state, path)
    return str(path)


def test_the_layout_is_the_official_one() -> None:
    """The renaming of this file gives the keys of the reference file, and its buffers."""
    weights = read("rmt")[0]
    ours = official(source())
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in weights.items()}
    for key in weights:
        if "Relpos" in key:
            torch.testing.assert_close(ours[key], weights[key], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "model_ema", None])
@pytest.mark.parametrize("token_label", [False, True])
def test_classification_files(wrapper: str | None, token_label: bool, tmp_path: Path) -> None:
    model, x = source(token_label=token_label), image(40, 64)
    path = saved({wrapper: official(model)} if wrapper else official(model), tmp_path / "rmt.pth")
    loaded = timm.create_model("rmt_t", checkpoint_path=path, token_label=token_label, **TINY).eval()
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
    headless = timm.create_model("rmt_t", checkpoint_path=path, **{**TINY, "num_classes": 0}).eval()
    with torch.no_grad():
        assert torch.equal(headless(x), model.forward_head(model.forward_features(x), pre_logits=True))
    if token_label:
        with pytest.raises(RuntimeError, match=r"head\.aux"):
            timm.create_model("rmt_t", checkpoint_path=path, **TINY)


@pytest.mark.parametrize("prefix", ["", "backbone."])
@pytest.mark.parametrize("indices", [(0, 1, 2, 3), (1, 2)])
def test_dense_files(prefix: str, indices: tuple[int, ...], tmp_path: Path) -> None:
    """Alone or inside a detector; in each feature its norm."""
    model = source(feature_norms=True, num_classes=0)
    state = {prefix + k: v for k, v in official(model).items() if not k.startswith(("proj.", "norm."))}
    if prefix:
        state["neck.lateral_convs.0.conv.weight"] = torch.zeros(3)
    path = saved({"state_dict": state}, tmp_path / "detector.pth")
    options = {**TINY, "features_only": True, "out_indices": indices}
    loaded = timm.create_model("rmt_t", checkpoint_path=path, **options).eval()
    other = timm.create_model("rmt_t", **options).eval()
    other.load_state_dict(state)
    x = image(72, 44)
    with torch.no_grad():
        wanted = model.forward_intermediates(x, list(indices), intermediates_only=True)
        for features in (loaded(x), other(x)):
            for ours, theirs in zip(features, wanted, strict=True):
                assert torch.equal(ours, theirs)


def test_a_classification_file_in_a_dense_model(tmp_path: Path) -> None:
    """Norms of the features start at identity."""
    model, x = source(), image(72, 44)
    path = saved({"model": official(model)}, tmp_path / "rmt.pth")
    dense = timm.create_model("rmt_t", features_only=True, checkpoint_path=path, **TINY).eval()
    with torch.no_grad():
        maps = model.forward_intermediates(x, intermediates_only=True, output_fmt="NHWC")
        for ours, plain in zip(dense(x), maps, strict=True):
            normed = torch.nn.functional.layer_norm(plain, plain.shape[-1:]).permute(0, 3, 1, 2)
            torch.testing.assert_close(ours, normed, atol=1e-5, rtol=1e-5)


def test_decays_come_from_the_file(tmp_path: Path) -> None:
    """Its code computes with them, so they become those of the model, and are saved with it."""
    theirs = dict(decay_init=(2, 1.5, 3, 2), decay_range=(3, 5.5, 6, 0))
    model, x = source(**theirs), image(64, 64)
    loaded = timm.create_model("rmt_t", **TINY).eval()
    with torch.no_grad():
        loaded(x)  # which makes the tables of its own decays
        loaded.load_state_dict({"model": official(model)})
        assert (source(**TINY)(x) - model(x)).abs().max() > 1e-4
        torch.testing.assert_close(loaded(x), model(x), atol=1e-6, rtol=1e-5)
        assert (loaded.decay_init, loaded.decay_range) == ((2, 1.5, 3, 2), (3, 5.5, 6, 0))
        timm.models.save_for_hf(loaded, tmp_path / "hub", safe_serialization=True)
        again = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
        torch.testing.assert_close(again(x), loaded(x))


def test_what_does_not_fit_is_refused() -> None:
    weights = official(source())
    model = timm.create_model("rmt_t", **TINY)

    def refused(match: str, of: Any = model, **changed: Any) -> None:
        state = {key: value for key, value in (weights | changed).items() if value is not None}
        with pytest.raises(MisfitError, match=match):
            of.load_state_dict(state)

    missing = dict.fromkeys([key for key in weights if key.startswith("layers.1.blocks.0.retention.v_proj")])
    refused(r"missing from the file: stages\.1\.blocks\.0\.attn\.qkv\.bias", **missing)
    refused(r"not in the model: stages\.9\.blocks\.0\.ffn", **{"layers.9.blocks.0.ffn.fc3.weight": torch.zeros(2)})
    refused("theta=10000 of rope_raster", **{"layers.0.Relpos.angle": torch.ones(8)})
    refused(
        "Relpos.decay of stage 3 follows from no", **{"layers.3.Relpos.decay": torch.tensor([-0.1, -0.2, -0.1, -0.3])}
    )
    refused("num_heads=2 of stage 0 is not that of the file: 4", **{"layers.0.Relpos.decay": torch.full((4,), -0.1)})
    refused(r"not in the model: .*pos_encoding", of=timm.create_model("none_rmt_t", **TINY))
    names = visionpe.list_encodings()
    assert {part["name"] for part in model.encoding_spec} <= set(names)


def test_token_label() -> None:
    """The second classifier adds half of the largest logits of all tokens, as published for evaluation."""
    model, x = source(token_label=True), image(32, 32)
    with torch.no_grad():
        last = model.forward_features(x)
        plain = model.head.fc(model.forward_head(last, pre_logits=True))
        torch.testing.assert_close(model(x), plain + 0.5 * model.head.aux(last).flatten(1, 2).max(1)[0])
        model.reset_classifier(7)
        assert model(x).shape == (2, 7)
        model.reset_classifier(0)
        assert model.head.aux is None
        assert model(x).shape == (2, 48)


def test_features() -> None:
    """Norms of their own, as in the published backbone; without the projection ahead of the classifier."""
    backbone = timm.create_model("rmt_t", features_only=True, out_indices=(1,), **TINY).eval()
    assert isinstance(backbone.model.norms[1], torch.nn.LayerNorm)
    assert backbone.model.norms[1].eps == 1e-5
    assert not any(key.startswith("head.") for key in backbone.model.state_dict())
    with torch.no_grad():
        assert backbone(image(40, 24))[0].shape == (2, 24, 5, 3)
