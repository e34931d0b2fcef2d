"""Published CSWin files: every layout loads, into classifiers and dense models, and what does not fit is refused."""

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

from visionpe.backbones.cswin.cswin_models import SIZES, WEIGHTS

SMALL: dict[str, Any] = dict(
    img_size=64, embed_dim=8, depths=(1, 1, 2, 1), num_heads=(2, 2, 4, 4), stripe_widths=(1, 2, 2, 2)
)
DENSE = {**SMALL, "num_heads": (2, 4, 8, 16), "stripe_widths": (1, 2, 7, 7), "mlp_ratio": 2.0}
KINDS = {"vertical": 0, "horizontal": 1, "full": 0}
RULES = [
    (r"patch_embed\.proj", "stage1_conv_embed.0"),
    (r"patch_embed\.norm", "stage1_conv_embed.2"),
    (r"stages\.(\d)\.downsample", lambda m: f"merge{m[1]}"),
    (r"norms\.(\d)", lambda m: f"norm{int(m[1]) + 1}"),
    (r"head\.fc", "head"),
    (
        r"stages\.(\d)\.pos_encoding\.inside\.(\w+)\.lepe\.convs\.(\d+)",
        lambda m: f"stage{int(m[1]) + 1}.{m[3]}.attns.{KINDS[m[2]]}.get_v",
    ),
    (r"stages\.(\d)\.blocks\.(\d+)\.(?:attn\.)?", lambda m: f"stage{int(m[1]) + 1}.{m[2]}."),
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
    return randomize(timm.create_model("cswin_t", **{**SMALL, **kwargs}))


def saved(state: Any, path: Path) -> str:
    torch.save(state, path)
    return str(path)


def test_the_layout_is_the_official_one() -> None:
    """The renaming of this file gives the keys of the reference files, one of each kind of model."""
    for name, options in (("cswin_cls", {}), ("cswin_seg_features", dict(feature_norms=True, num_classes=0))):
        heads = (2, 2, 4, 8) if name == "cswin_cls" else DENSE["num_heads"]
        model = source(mlp_ratio=2.0, **{"num_classes": 5, "num_heads": heads, **options})
        wanted = {key: value.shape for key, value in read(name)[0].items()}
        assert {key: value.shape for key, value in official(model.state_dict()).items()} == wanted


@pytest.mark.parametrize("wrapper", ["state_dict_ema", "state_dict", "model", None])
def test_classification_files(wrapper: str | None, tmp_path: Path) -> None:
    """22k classes included, and a stage whose map is one stripe, which has one branch in the file."""
    options = dict(num_classes=21, stripe_widths=(1, 8, 2, 2))
    model, x = source(**options), torch.randn(1, 3, 64, 64)
    state = official(model.state_dict())
    assert "stage2.0.attns.1.get_v.weight" not in state
    path = saved({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "cswin.pth")
    loaded = timm.create_model("cswin_t", checkpoint_path=path, **{**SMALL, **options}).eval()
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))
    assert loaded.padding == "mask"


def test_a_classification_file_in_a_dense_model(tmp_path: Path) -> None:
    model, x = source(num_classes=5), torch.randn(1, 3, 72, 104)
    path = saved({"state_dict": official(model.state_dict())}, tmp_path / "cswin.pth")
    dense = timm.create_model("cswin_t", features_only=True, checkpoint_path=path, **SMALL).eval()
    headed = timm.create_model("cswin_t", feature_norms=True, num_classes=5, checkpoint_path=path, **SMALL).eval()
    wanted = {**model.state_dict(), **{f"norms.3.{n}": model.norm.state_dict()[n] for n in ("weight", "bias")}}
    for key, value in dense.model.state_dict().items():
        if key in wanted:
            assert torch.equal(value, wanted[key]), key
        else:  # the other norms start at identity
            assert re.match(r"norms\.[012]\.", key)
            assert torch.equal(value, torch.ones_like(value) * key.endswith("weight"))
    with torch.no_grad():
        torch.testing.assert_close(headed(x), model(x))
        *_, last = model.forward_intermediates(x, intermediates_only=True, norm=True)
        torch.testing.assert_close(dense(x)[-1], last)
    assert dense.model.padding == "mask"


@pytest.mark.parametrize("prefix", ["", "backbone."])
@pytest.mark.parametrize("way", ["checkpoint_path", "pretrained", "load_state_dict"])
@pytest.mark.parametrize("indices", [(0, 1, 2, 3), (1, 2)])
def test_dense_files(prefix: str, way: str, indices: tuple[int, ...], tmp_path: Path) -> None:
    """Alone or inside a segmentor; features as the official code gives them, its unmasked padding included."""
    weights, inputs, outputs, _ = read("cswin_seg_features")
    state = {prefix + key: value for key, value in weights.items()}
    if prefix:
        state["decode_head.conv_seg.weight"] = torch.zeros(3)
    path = saved({"state_dict": state}, tmp_path / "upernet.pth")
    options: dict[str, Any] = {**DENSE, "features_only": True, "out_indices": indices}
    if way == "checkpoint_path":
        options["checkpoint_path"] = path
    elif way == "pretrained":
        options |= dict(pretrained=True, pretrained_cfg_overlay={"file": path})
    model = timm.create_model("cswin_t", **options).eval()
    if way == "load_state_dict":
        model.load_state_dict(state)
    assert model.model.padding == "values"
    with torch.no_grad():
        for index, ours in zip(indices, model(inputs["nonsquare"])):
            close(ours, outputs[f"nonsquare.feat{index + 1}"])


def test_a_chosen_padding_outlives_loading() -> None:
    weights = read("cswin_seg_features")[0]
    for padding in ("mask", "values"):
        model = timm.create_model("cswin_t", features_only=True, padding=padding, **DENSE)
        model.load_state_dict(weights)
        assert model.model.padding == padding
    model = timm.create_model("cswin_t", feature_norms=True, num_classes=0, **DENSE)
    model.set_padding("mask")
    model.load_state_dict(weights)
    assert model.padding == "mask"


def test_widths_of_the_large_size() -> None:
    """Official classifiers double; the dense backbone widens by the ratio of heads, which is one at the end."""
    for embed_dim, channels in ((144, [144, 288, 576, 1152]), ((144, 288, 576, 576), [144, 288, 576, 576])):
        with torch.device("meta"):
            model = timm.create_model("cswin_l", features_only=True, embed_dim=embed_dim, depths=(1, 1, 1, 1))
        assert model.feature_info.channels() == channels
        state = official(model.model.state_dict())
        assert state["merge3.conv.weight"].shape == (channels[3], 576, 3, 3)
        model.model.load_state_dict({key: torch.zeros_like(value) for key, value in state.items()})


def test_own_files(tmp_path: Path) -> None:
    """A dense model's own state dict, and its extractor's, come back; a model of another size takes them."""
    model = randomize(timm.create_model("cswin_t", features_only=True, **SMALL))
    x = torch.randn(1, 3, 40, 72)
    for state in (model.state_dict(), model.model.state_dict()):
        path = saved(state, tmp_path / "own.pth")
        again = timm.create_model("cswin_t", features_only=True, checkpoint_path=path, **{**SMALL, "img_size": 96})
        with torch.no_grad():
            for ours, wanted in zip(again.eval()(x), model(x)):
                assert torch.equal(ours, wanted)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("rope_cswin_t", {}, r"CSWin with pos_encoding='rope_mixed'; missing.*freqs.*; not in the model: .*lepe"),
        ("cswin_t", {"depths": (1, 1, 3, 1)}, r"missing from the file: stages.2.blocks.2.*and \d+ more$"),
        ("cswin_t", {"embed_dim": (8, 16, 32, 32)}, r"of another shape: norm.bias \(file \(64,\), model \(32,"),
        ("cswin_t", {"stripe_widths": (1, 8, 2, 2)}, r"missing from the file: stages.1.pos_encoding.inside.full"),
    ],
)
def test_refusals(name: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = saved(official(source().state_dict()), tmp_path / "cswin.pth")
    options = {**SMALL, **changes}
    with pytest.raises(RuntimeError, match=message) as error:
        timm.create_model(name, checkpoint_path=path, **options)
    assert len(str(error.value)) < 800
    if name == "rope_cswin_t":
        overlay = {"file": path}
        model = timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay=overlay, pretrained_strict=False, **options
        )
        assert torch.equal(model.stages[2].blocks[1].attn.qkv.weight, torch.load(path)["stage3.1.qkv.weight"])


def test_a_dense_file_in_a_classifier_is_refused() -> None:
    model = timm.create_model("cswin_t", **{**DENSE, "num_classes": 5})
    with pytest.raises(RuntimeError, match=r"missing from the file: norm\.bias.*not in the model: norms\.0\.bias"):
        model.load_state_dict(read("cswin_seg_features")[0])


def test_published_sizes_and_sources() -> None:
    """Depths, widths and heads of the paper; parameters as published, millions; a source for every published file."""
    shapes = {s: (a["embed_dim"], a["depths"], a["num_heads"]) for s, a in SIZES.items()}
    assert shapes == {
        "t": (64, (1, 2, 21, 1), (2, 4, 8, 16)),
        "s": (64, (2, 4, 32, 2), (2, 4, 8, 16)),
        "b": (96, (2, 4, 32, 2), (4, 8, 16, 32)),
        "l": (144, (2, 4, 32, 2), (6, 12, 24, 24)),
    }
    for size, millions in (("t", 23), ("s", 35), ("b", 78), ("l", 173)):
        with torch.device("meta"):
            model = timm.create_model(f"cswin_{size}")
        assert abs(sum(p.numel() for p in model.parameters()) / 1e6 - millions) < 1
    assert sum(map(len, WEIGHTS.values())) == 7
    for size, tags in WEIGHTS.items():
        for tag, file in tags.items():
            cfg = timm.get_pretrained_cfg(f"cswin_{size}.{tag}", allow_unregistered=False)
            side = 384 if "384" in file else 224
            assert cfg.url.endswith(f"/v0.1.0/{file}")
            assert (cfg.input_size, cfg.crop_pct) == ((3, side, side), 1.0 if side == 384 else 0.9)
            assert cfg.num_classes == (21841 if "22k" in file else 1000)


@pytest.mark.parametrize("options", [dict(), dict(features_only=True), dict(features_only=True, img_size=512)])
def test_a_tag_brings_its_stripes(options: dict[str, Any]) -> None:
    """Also to a dense model of another size, whose stripes stay those of the weights."""
    for tag, width in (("", 7), (".ms_384_in1k", 12)):
        with torch.device("meta"):
            model = timm.create_model("cswin_b" + tag, depths=(1, 1, 1, 1), **options)
        model = getattr(model, "model", model)
        assert [stage.stripe_width for stage in model.stages] == [1, 2, width, None]
