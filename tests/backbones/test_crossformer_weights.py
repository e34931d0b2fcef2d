"""Published CrossFormer files: every layout loads, into classifiers and dense models, and what misfits is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import randomize
from reference_files import close, read
from torch import Tensor

from visionpe.backbones.crossformer.crossformer_models import PLUS_SIZES, SIZES

SMALL: dict[str, Any] = dict(
    img_size=32, patch_size=(4, 8), embed_dim=16, depths=(4, 2), num_heads=(2, 4), group_size=3, use_acl=True,
    num_classes=5,
)  # fmt: skip
NETWORK = ("pos_proj", "pos1.0", "", "pos1.2", "pos2.0", "", "pos2.2", "pos3.0", "", "pos3.2")
KINDS = {"short": 0, "long": 1}
RULES = [
    (r"head\.fc", "head"),
    (r"stages\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample"),
    (
        r"stages\.(\d)\.pos_encoding\.inside\.(\w+)\.dpb\.mlp\.(\d+)\.(\d)",
        lambda m: f"layers.{m[1]}.blocks.{2 * int(m[3]) + KINDS[m[2]]}.attn.pos.{NETWORK[int(m[4])]}",
    ),
    (r"stages\.(\d)\.blocks", r"layers.\1.blocks"),
]


def official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our keys in the official words."""
    out = {}
    for key, value in state.items():
        for pattern, theirs in RULES:
            key = re.sub("^" + pattern, theirs, key)
        out[key] = value
    return out


def source(**kwargs: Any) -> torch.nn.Module:
    return randomize(timm.create_model("crossformer_s", **{**SMALL, **kwargs}))


def saved(state: Any, path: Path) -> str:
    torch.save(state, path)
    return str(path)


def test_the_layout_is_the_official_one() -> None:
    """The renaming of this file gives the keys of the reference file."""
    weights, _, _, metadata = read("crossformer")
    model = timm.create_model("crossformer_s", **metadata["kwargs"])
    wanted = {key: value.shape for key, value in weights.items()}
    assert {key: value.shape for key, value in official(model.state_dict()).items()} == wanted


@pytest.mark.parametrize("run", ["native", "larger"])
@pytest.mark.parametrize("wrapper", ["model", None])
def test_the_reference_file(wrapper: str | None, run: str, tmp_path: Path) -> None:
    """With what the first paper's code keeps beside the weights."""
    weights, inputs, outputs, metadata = read("crossformer")
    kept = {"biases": (49, 2), "relative_position_index": (16, 16)}
    weights |= {f"layers.0.blocks.1.attn.{key}": torch.zeros(shape) for key, shape in kept.items()}
    path = saved({wrapper: weights, "epoch": 3} if wrapper else weights, tmp_path / "crossformer.pth")
    model = timm.create_model("crossformer_s", checkpoint_path=path, **metadata["kwargs"]).eval()
    with torch.no_grad():
        close(model(inputs[run]), outputs[f"{run}.logits"])
    assert model.stages[0].group_fit == "per_axis"


@pytest.mark.parametrize(
    "options",
    [{}, {"group_size": ((2, 3, 4, 2), 3)}, {"pos_encoding": "dpb+ape"}, {"patch_norm": False, "qkv_bias": False}],
)
def test_classification_files(options: dict[str, Any], tmp_path: Path) -> None:
    """CrossFormer++, groups that differ between blocks, the published absolute table."""
    model, x = source(**options), torch.randn(1, 3, 32, 32)
    state = {}
    for key, value in model.state_dict().items():
        if match := re.match(r"stages\.0\.pos_encoding\.inside\.(\w+_\d)\.dpb\.mlp\.(\d+)\.(\d)(.+)", key):
            block = model.stages[0].places.index((match[1], int(match[2])))
            key = f"layers.0.blocks.{block}.attn.pos.{NETWORK[int(match[3])]}{match[4]}"
        elif key == "stages.0.pos_encoding.map.ape.table":
            key, value = "absolute_pos_embed", value.flatten(0, 1)[None]
        state[key] = value
    path = saved({"model": official(state)}, tmp_path / "crossformer.pth")
    loaded = timm.create_model("crossformer_s", checkpoint_path=path, **{**SMALL, **options}).eval()
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))


@pytest.mark.parametrize("prefix", ["", "backbone."])
@pytest.mark.parametrize("chosen", [None, "per_axis"])
def test_dense_files(prefix: str, chosen: Any, tmp_path: Path) -> None:
    """Alone or inside a segmentor; small maps as the official code has them, unless the user says otherwise."""
    options = {**SMALL, "out_indices": (0, 1), "features_only": True}
    model, x = timm.create_model("crossformer_s", group_fit="whole_map", **options), torch.randn(1, 3, 8, 64)
    randomize(model)
    state = {prefix + key: value for key, value in official(model.model.state_dict()).items()}
    if prefix:
        state["decode_head.conv_seg.weight"] = torch.zeros(3)
    path = saved({"state_dict": state}, tmp_path / "upernet.pth")
    loaded = timm.create_model("crossformer_s", checkpoint_path=path, group_fit=chosen, **options).eval()
    assert loaded.model.stages[0].group_fit == (chosen or "whole_map")
    assert ("group_fit" in loaded.model.saved_arguments()) == (chosen is None)
    with torch.no_grad():
        same = [torch.equal(ours, wanted) for ours, wanted in zip(loaded(x), model(x), strict=True)]
    assert same == [chosen is None] * 2


def test_features_of_a_classification_file(tmp_path: Path) -> None:
    model, x = source(), torch.randn(1, 3, 36, 52)
    path = saved({"model": official(model.state_dict())}, tmp_path / "crossformer.pth")
    dense = timm.create_model(
        "crossformer_s", features_only=True, out_indices=(0, 1), checkpoint_path=path, **SMALL
    ).eval()
    with torch.no_grad():
        for ours, wanted in zip(dense(x), model.forward_intermediates(x, intermediates_only=True), strict=True):
            assert torch.equal(ours, wanted)


def test_other_channels(tmp_path: Path) -> None:
    """timm adapts all convolutions of the stem."""
    model = source()
    path = saved({"model": official(model.state_dict())}, tmp_path / "crossformer.pth")
    overlay = {"file": path}
    grey = timm.create_model("crossformer_s", pretrained=True, pretrained_cfg_overlay=overlay, in_chans=1, **SMALL)
    for ours, wanted in zip(grey.patch_embed.projs, model.patch_embed.projs):
        torch.testing.assert_close(ours.weight, wanted.weight.sum(1, keepdim=True))


def test_own_files(tmp_path: Path) -> None:
    model = source(pos_encoding="rpb")
    path = saved(model.state_dict(), tmp_path / "own.pth")
    again = timm.create_model("rpb_crossformer_s", checkpoint_path=path, **{**SMALL, "img_size": 64}).eval()
    x = torch.randn(1, 3, 40, 72)
    with torch.no_grad():
        assert torch.equal(again(x), model(x))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("rope_crossformer_s", {}, r"CrossFormer with pos_encoding='rope_mixed'; missing.*freqs.*; not in the.*dpb"),
        ("crossformer_s", {"depths": (4, 3)}, r"missing from the file: stages.1.blocks.2.*and \d+ more$"),
        ("crossformer_s", {"depths": (4, 1)}, r"not in the model: stages.1.blocks.1"),
        ("crossformer_s", {"use_acl": False}, r"not in the model: stages.0.blocks.2.ex_conv.bias"),
        ("crossformer_s", {"patch_size": (4, 16)}, r"patch_embed\.projs\.1\.weight"),
        ("crossformer_s", {"pos_encoding": "dpb(hidden=5)"}, r"of another shape: stages.0.pos_encoding.inside.long"),
    ],
)
def test_refusals(name: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = saved({"model": official(source().state_dict())}, tmp_path / "crossformer.pth")
    with pytest.raises(RuntimeError, match=message) as error:
        timm.create_model(name, checkpoint_path=path, **{**SMALL, **changes})
    assert len(str(error.value)) < 800


def test_a_dense_file_in_a_classifier_is_refused() -> None:
    state = official(source().state_dict())
    with pytest.raises(RuntimeError, match=r"missing from the file: norm\.bias"):
        source().load_state_dict({k: v for k, v in state.items() if not k.startswith(("norm.", "head."))})


def test_published_sizes() -> None:
    """Depths, widths, heads, groups and stochastic depth of the configurations; parameters as published, millions."""
    keys = ("embed_dim", "depths", "num_heads", "drop_path_rate")
    deep, heads = (2, 2, 18, 2), ((2, 4, 8, 16), (3, 6, 12, 24), (4, 8, 16, 32))
    assert {size: tuple(each[key] for key in keys) for size, each in SIZES.items()} == {
        "t": (64, (1, 1, 8, 6), heads[0], 0.1),
        "s": (96, (2, 2, 6, 2), heads[1], 0.2),
        "b": (96, deep, heads[1], 0.3),
        "l": (128, deep, heads[2], 0.5),
    }
    assert {size: tuple(each[key] for key in keys) for size, each in PLUS_SIZES.items()} == {
        "s": (64, deep, heads[0], 0.2),
        "b": (96, deep, heads[1], 0.3),
        "l": (128, deep, heads[2], 0.5),
        "h": (128, (6, 6, 18, 2), heads[2], 0.5),
    }
    published = {"t": 27.8, "s": 30.7, "b": 52.0, "l": 92.0, "pp_s": 23.3, "pp_b": 52.0, "pp_l": 92.0, "pp_h": 96.0}
    for size, millions in published.items():
        with torch.device("meta"):
            model = timm.create_model(f"crossformer_{size}")
        assert abs(sum(p.numel() for p in model.parameters()) / 1e6 - millions) < 0.5, size
        intervals = [stage.interval for stage in model.stages]
        groups = [next(stage.groups[kind] for kind, _ in stage.places) for stage in model.stages]
        assert (groups, intervals) == (([4, 4, 14, 7], [4, 2, 1, 1]) if "pp" in size else ([7] * 4, [8, 4, 2, 1]))
        assert [hasattr(block, "ex_conv") for block in model.stages[2].blocks][2:6] == [
            "pp" in size,
            False,
            False,
            ("pp" in size),
        ]
        assert [conv.kernel_size[0] for conv in model.patch_embed.projs] == [4, 8, 16, 32]
        assert all([conv.kernel_size[0] for conv in s.downsample.reductions] == [2, 4] for s in model.stages[1:])
    cfg = timm.get_pretrained_cfg("crossformer_pp_s")
    assert (cfg.crop_pct, cfg.interpolation, cfg.input_size) == (0.875, "bicubic", (3, 224, 224))
