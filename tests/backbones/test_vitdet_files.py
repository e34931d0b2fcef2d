"""Files of windowed ViTs: under several prefixes, as pickles, and of other windows, which are refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import timm
import torch
from reference_files import close, read
from test_vitdet import TINY, tiny_vitdet
from test_vitdet_weights import loaded, official

SIMFP = {"simfp_2.0.weight": torch.zeros(3), "simfp_4.1.norm.bias": torch.zeros(3)}
PLAIN = dict(num_classes=0, fc_norm=False, final_norm=False)
KEYWORDS = ("img_size", "patch_size", "embed_dim", "depth", "num_heads", "window_size", "pretrain_img_size")


@pytest.mark.parametrize("prefix", ["net.", "backbone.net.", "backbone.", "detector.backbone.net.", ""])
@torch.no_grad()
def test_the_official_weights_under_any_prefix(prefix: str, tmp_path: Path) -> None:
    weights, inputs, outputs, metadata = read("vitdet")
    owner = prefix.removesuffix("net.")
    state = {prefix + key: value for key, value in weights.items()} | {
        owner + k: v for k, v in SIMFP.items() if owner != prefix
    }
    torch.save({"model": state}, tmp_path / "file.pth")
    options = {key: metadata["kwargs"][key] for key in KEYWORDS}
    ours = timm.create_model(
        "vitdet_b", checkpoint_path=tmp_path / "file.pth", global_blocks=(1,), **options, **PLAIN
    ).eval()
    close(ours.forward_features(inputs["nonsquare"]), outputs["nonsquare.last_feat"])


@pytest.mark.parametrize("features_only", [False, True])
@torch.no_grad()
def test_detectron2s_pickle_by_checkpoint_path(features_only: bool, tmp_path: Path) -> None:
    source = tiny_vitdet(padding="tokens", **PLAIN)
    arrays = {key: value.numpy() for key, value in official(source, "backbone.net.", {}).items()}
    arrays |= {f"backbone.{key}": value.numpy() for key, value in SIMFP.items()}
    content = {"model": arrays, "__author__": "someone", "matching_heuristics": True}
    (tmp_path / "model_final.pkl").write_bytes(pickle.dumps(content))
    options = {**TINY, "num_classes": 0}
    options |= dict(features_only=True, out_indices=(3,)) if features_only else {}
    ours = timm.create_model("vitdet_b", checkpoint_path=tmp_path / "model_final.pkl", **options).eval()
    x = torch.randn(1, 3, 28, 44)
    found = ours(x)[0] if features_only else ours.forward_features(x)
    close(found, source.forward_features(x))


def test_names_that_only_look_like_tables_are_refused() -> None:
    state = {**official(tiny_vitdet(**PLAIN), "", {}), "some.head.rel_pos_h": torch.zeros(3, 16)}
    with pytest.raises(RuntimeError, match=r"not in the model: some\.head\.rel_pos_h"):
        tiny_vitdet(**PLAIN).load_state_dict(state)


@pytest.mark.parametrize(
    ("spec", "window", "ours"),
    [
        ("decomposed+ape", 3, False),
        ("decomposed+ape", 3, True),
        ("rpb", 3, True),
        ("attention_bias", 3, True),
        ("dropped(ape)+decomposed", (3, 2), True),
    ],
)
def test_other_windows_are_refused(spec: str, window: int | tuple[int, int], ours: bool, tmp_path: Path) -> None:
    """Tables of windows of another size would load by being resized, and mean other places."""
    source = tiny_vitdet(spec, window_size=window, **PLAIN)
    state = source.state_dict() if ours else official(source, "backbone.net.", {})
    pair = (window, window) if isinstance(window, int) else window
    wanted = rf"window_size=\(4, 4\) is not that of the file, .* allowed: window_size=\({pair[0]}, {pair[1]}\)"
    with pytest.raises(RuntimeError, match=wanted):
        loaded(state, tmp_path, pos_encoding=spec, window_size=4, num_classes=0, fc_norm=False)
    with pytest.raises(RuntimeError, match=wanted):
        tiny_vitdet(spec, window_size=4, **PLAIN).load_state_dict(state)
    same = tiny_vitdet(spec, window_size=window, img_size=64, **PLAIN)  # tables of the global blocks are resized
    same.load_state_dict(state)
    tiny_vitdet(spec, window_size=4, **PLAIN).load_state_dict(state, strict=False)  # asked for
