"""Published Swin files: timm's, the original code's and RoPE-Swin's load exactly; others are refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm
import torch
from conftest import randomize
from safetensors.torch import save_file

TINY = dict(img_size=32, patch_size=2, embed_dim=16, depths=(2, 3), num_heads=(1, 2), window_size=4, num_classes=5)


def tiny(name: str = "swin_t", **kwargs: object) -> torch.nn.Module:
    return randomize(timm.create_model(name, **{**TINY, **kwargs}))


def published(model: torch.nn.Module, layout: str) -> dict:
    """Our state dict in the words of ``timm`` or of the ``original`` code, with its buffers."""
    out = {}
    for key, value in model.state_dict().items():
        if match := re.fullmatch(r"stages\.(\d+)\.pos_encoding\.inside\.window\.(rpb|rope_mixed)\.\w+", key):
            axis = 0 if match[2] == "rpb" else 1
            name = {"rpb": "relative_position_bias_table", "rope_mixed": "rope_freqs"}[match[2]]
            for block, own in enumerate(value.unbind(axis)):
                prefix = f"layers.{match[1]}.blocks.{block}.attn."
                out[prefix + name] = own.flatten(1).T.contiguous() if axis == 0 else own.contiguous()
                if layout == "original":
                    out[prefix + "relative_position_index"] = torch.zeros(16, 16, dtype=torch.long)
                    out[prefix + "rope_t_x"] = out[prefix + "rope_t_y"] = torch.zeros(16)
            continue
        if match := re.fullmatch(r"stages\.(\d+)\.(.+)", key):
            stage = int(match[1]) - (layout == "original" and "downsample" in key)
            key = f"layers.{stage}.{match[2]}"
            if layout == "original" and key.endswith("blocks.1.norm1.weight"):
                out[key.replace("norm1.weight", "attn_mask")] = torch.zeros(4, 16, 16)
        elif layout == "original":
            key = key.replace("head.fc.", "head.")
        out[key] = value
    return out


LAYOUTS = [("timm", "rpb", "per_axis"), ("original", "rpb", "shorter_side")]
LAYOUTS += [("original", spec, "shorter_side") for spec in ("rope_mixed", "rope_mixed+rpb")]


@pytest.mark.parametrize(("layout", "spec", "fit"), LAYOUTS)
@pytest.mark.parametrize("wrapper", [(), ("model",), ("state_dict_ema",), ("model", "state_dict")], ids=".".join)
@torch.no_grad()
def test_layouts(layout: str, spec: str, fit: str, wrapper: tuple, tmp_path: Path) -> None:
    source = tiny(pos_encoding=spec, window_fit=fit)
    content: dict = published(source, layout)
    assert not any(key.startswith("stages.") for key in content)
    for key in wrapper:
        content = {key: content, "epoch": 3}
    torch.save(content, tmp_path / "swin.pth")
    options: dict = {**TINY, "pos_encoding": spec}
    if len(wrapper) > 1:
        options |= dict(pretrained=True, pretrained_cfg_overlay={"file": str(tmp_path / "swin.pth"), "num_classes": 5})
        options["pretrained_cfg_overlay"]["input_size"] = (3, 32, 32)
    else:
        options["checkpoint_path"] = tmp_path / "swin.pth"
    model = timm.create_model("swin_t", **options).eval()
    assert {stage.window_fit for stage in model.stages} == {fit}
    for size in ((32, 32), (16, 50), (8, 32)):
        x = torch.randn(2, 3, *size)
        torch.testing.assert_close(model(x), source(x), atol=1e-6, rtol=1e-6)


def test_a_chosen_fit_outlives_loading() -> None:
    state = published(tiny(), "original")
    chosen, later = tiny(window_fit="per_axis"), tiny()
    later.set_window_fit("per_axis")
    for model in (chosen, later):
        model.load_state_dict(state)
        assert {stage.window_fit for stage in model.stages} == {"per_axis"}


def test_our_layout_keeps_the_fit() -> None:
    model = tiny()
    model.load_state_dict(published(tiny(), "original"))
    model.load_state_dict(tiny().state_dict())
    assert {stage.window_fit for stage in model.stages} == {"shorter_side"}


@torch.no_grad()
def test_tables_of_another_window() -> None:
    """A file with windows of 6 in a model with windows of 4: as if the model had grown its windows."""
    source, model = tiny(window_size=6), tiny()
    model.load_state_dict(published(source, "timm"))
    source.set_input_size(window_size=4)
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(model(x), source(x))


@torch.no_grad()
def test_windows_that_are_not_square() -> None:
    source, model = tiny(window_size=(4, 8)), tiny(window_size=(4, 8))
    model.load_state_dict(published(source, "timm"))
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(model(x), source(x))


@torch.no_grad()
@pytest.mark.parametrize("square", [True, False])
def test_the_index_tells_windows_of_as_many_entries(square: bool) -> None:
    """Windows of 2 x 2 and of 1 x 5 have nine offsets each; the file holds the index of their tokens."""
    source, model = tiny(window_size=2 if square else (1, 5)), tiny(window_size=(1, 5))
    state = published(source, "timm")
    for key in [key for key in state if key.endswith("bias_table")]:
        tokens = 4 if square else 5
        state[key.replace("bias_table", "index")] = torch.zeros(tokens, tokens, dtype=torch.long)
    model.load_state_dict(state)
    source.set_input_size(window_size=(1, 5))
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(model(x), source(x))


def test_larger_official_windows_fit() -> None:
    options = dict(embed_dim=16, num_heads=(1, 2, 2, 2), num_classes=5, depths=(1, 1, 2, 1))
    theirs = timm.create_model("swin_base_patch4_window12_384", **options)
    for window in (7, 12):
        model = timm.create_model("swin_b", window_size=window, **options)
        model.load_state_dict(theirs.state_dict())
    head = theirs.layers[2].blocks[1].attn.relative_position_bias_table[:, 1]
    assert torch.equal(model.stages[2].pos_encoding.inside["window"]["rpb"].table[1, 1].flatten(), head)


def axial_file(model: torch.nn.Module, theta: float) -> dict:
    """RoPE-Swin's axial file: frequencies that forward does not read, in a buffer."""
    state = published(model, "original")
    for stage, (depth, heads) in enumerate(zip(TINY["depths"], TINY["num_heads"])):
        bands = theta ** (-torch.arange(4) * 4 / 16)
        blank = torch.full_like(bands, -4e-8)
        freqs = torch.stack((torch.cat((bands, blank)), torch.cat((blank, bands))))
        for block in range(depth):
            state[f"layers.{stage}.blocks.{block}.attn.rope_freqs"] = freqs[:, None].repeat(1, heads, 1)
    return state


@torch.no_grad()
def test_axial_frequencies() -> None:
    x, source = torch.randn(1, 3, 32, 48), tiny("rope_axial_swin_t")
    for name in ("rope_axial_swin_t", "rope_swin_t"):  # learned frequencies may have these values too
        model = tiny(name)
        model.load_state_dict(axial_file(source, 50.0))
        torch.testing.assert_close(model(x), source(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "state", "message"),
    [
        (
            "rope_axial_swin_t",
            lambda: axial_file(tiny("rope_axial_swin_t"), 100.0),
            "not in the model: .*inside.window.rope_mixed.freqs; theta=50 of rope_axial is not that of the file; "
            "allowed: 100$",
        ),
        (
            "rope_axial_swin_t",
            lambda: published(tiny("rope_swin_t"), "original"),
            "not in the model: .*rope_mixed.freqs",
        ),
        ("rope_swin_t", lambda: published(tiny(), "timm"), "missing from the file: .*rope_mixed.freqs; not in .*rpb"),
        ("swin_t", lambda: published(tiny(depths=(2, 2)), "timm"), "missing from the file: stages.1.blocks.2"),
        ("swin_t", lambda: published(tiny(embed_dim=32), "timm"), r"of another shape: norm.bias \(file"),
    ],
)
def test_refusals(name: str, state: object, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        tiny(name).load_state_dict(state())


def test_refuses_a_table_of_no_window() -> None:
    state = {k: v[:-1] if k.endswith("table") else v for k, v in published(tiny(), "timm").items()}
    with pytest.raises(RuntimeError, match="relative_position_bias_table of 48 entries is neither of a square window"):
        tiny().load_state_dict(state)


@torch.no_grad()
def test_a_classification_file_in_a_dense_backbone() -> None:
    source = tiny()
    model = tiny(feature_norms=True, num_classes=0)
    model.load_state_dict(published(source, "timm"))
    x = torch.randn(1, 3, 32, 32)
    theirs = source.forward_intermediates(x, norm=True, intermediates_only=True)
    ours = model.forward_intermediates(x, intermediates_only=True)
    torch.testing.assert_close(ours[1], theirs[1])
    torch.testing.assert_close(ours[0], torch.nn.functional.layer_norm(theirs[0].movedim(1, -1), (16,)).movedim(-1, 1))


def test_grown_windows_measure_from_the_size_of_the_weights(tmp_path: Path) -> None:
    """Weights of 32 pixels in a model built for 48: windows grow unless they were chosen for that size."""
    save_file(published(tiny("rope_swin_t", window_size=7), "timm"), tmp_path / "rope.safetensors")
    overlay = {"file": str(tmp_path / "rope.safetensors"), "num_classes": 5, "input_size": (3, 32, 32)}
    options = {**TINY, "img_size": 48, "window_policy": "grow", "pretrained": True, "pretrained_cfg_overlay": overlay}
    for window, expected in ((None, (11, 11)), (6, (6, 6))):
        model = timm.create_model("rope_swin_t", **{**options, "window_size": window})
        assert model.stages[0].window((24, 24)) == expected


def test_published_weights_are_those_of_timm() -> None:
    for ours, theirs in (("t", "tiny"), ("s", "small"), ("b", "base"), ("l", "large")):
        default = timm.get_pretrained_cfg(f"swin_{theirs}_patch4_window7_224")
        cfg = timm.get_pretrained_cfg(f"swin_{ours}")
        for key in ("hf_hub_id", "url", "tag", "input_size", "crop_pct", "num_classes", "license"):
            assert getattr(cfg, key) == getattr(default, key)
    assert timm.get_pretrained_cfg("swin_l.ms_in22k").num_classes == 21841
    for ours, theirs in (("rope", "mixed"), ("rope_mixed", "mixed"), ("rope_axial", "axial")):
        cfg = timm.get_pretrained_cfg(f"{ours}_swin_t.naver_in1k", allow_unregistered=False)
        assert cfg.hf_hub_id == f"naver-ai/swin_rope_{theirs}_tiny_patch4_window7_224"
        assert (cfg.crop_pct, cfg.num_classes, cfg.mean) == (0.875, 1000, default.mean)
    assert not timm.is_model_pretrained("rope_swin_l")
    assert not timm.is_model_pretrained("alibi_swin_t")


def test_names() -> None:
    axial = timm.create_model("rope_axial_swin_t", **TINY).stages[0].pos_encoding.inside["window"]["rope_axial"]
    mixed = timm.create_model("rope_swin_t", **TINY).stages[0].pos_encoding.inside["window"]["rope_mixed"]
    assert axial.theta == 50.0
    assert mixed.theta == 10.0
    counts = {"t": 28.3, "s": 49.6, "b": 87.8}  # millions, as published
    for size, millions in counts.items():
        with torch.device("meta"):
            model = timm.create_model(f"swin_{size}")
        assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == millions
