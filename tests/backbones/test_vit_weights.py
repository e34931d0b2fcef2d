"""Files that fit load exactly; files that do not are refused by their first offending keys."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from conftest import VIT_NAMES, randomize, tiny_vit
from jax_vit import jax_arrays
from safetensors.torch import save_file

SMALL = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=5)


def saved(model: torch.nn.Module, path: Path) -> Path:
    save_file(model.state_dict(), path)
    return path


def test_refuses_a_file_of_another_encoding(tmp_path: Path) -> None:
    path = saved(timm.create_model("rope_vit_s", **SMALL), tmp_path / "rope.safetensors")
    with pytest.raises(
        RuntimeError, match=r"'ape'.*missing from the file: pos_encoding.ape.table.*not in the model: pos"
    ):
        timm.create_model("ape_vit_s", checkpoint_path=path, **SMALL)


def test_refuses_another_architecture_briefly(tmp_path: Path) -> None:
    path = saved(timm.create_model("resnet18", num_classes=5), tmp_path / "resnet.safetensors")
    with pytest.raises(RuntimeError, match=r"missing from the file: .* and \d+ more") as error:
        timm.create_model("rope_vit_s", checkpoint_path=path, **SMALL)
    assert len(str(error.value)) < 500


def test_refuses_another_width(tmp_path: Path) -> None:
    path = saved(timm.create_model("rope_vit_s", **{**SMALL, "embed_dim": 64}), tmp_path / "wide.safetensors")
    with pytest.raises(
        RuntimeError, match=r"of another shape: blocks.0.attn.proj.bias \(file \(64,\), model \(32,\)\)"
    ):
        timm.create_model("rope_vit_s", checkpoint_path=path, **SMALL)


def test_refuses_a_table_of_no_shape() -> None:
    model = timm.create_model("ape_vit_s", **SMALL)
    state = {**model.state_dict(), "pos_embed": torch.zeros(1, 23, 32)}
    del state["pos_encoding.ape.table"]
    with pytest.raises(RuntimeError, match="pos_embed of 23 tokens is neither a square nor 4 x 4"):
        model.load_state_dict(state)


def test_pretrained_swap_of_the_encoding(tmp_path: Path) -> None:
    """Starting one encoding from another's weights is refused unless it is asked for."""
    source = randomize(timm.create_model("deit3_small_patch16_224", **SMALL))
    path = saved(source, tmp_path / "deit3.safetensors")
    options = dict(pretrained=True, pretrained_cfg_overlay={"file": str(path), "num_classes": 5}, **SMALL)
    with pytest.raises(
        RuntimeError, match=r"missing from the file: pos_encoding.rope_mixed.freqs; not in the model: pos"
    ):
        timm.create_model("rope_vit_s", **options)
    model = timm.create_model("rope_vit_s", pretrained_strict=False, **options)
    torch.testing.assert_close(model.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight)


def test_pretrained_adapts_classes_channels_and_patch(tmp_path: Path) -> None:
    source = randomize(timm.create_model("deit3_small_patch16_224", **{**SMALL, "num_classes": 1000}))
    path = saved(source, tmp_path / "deit3.safetensors")
    changed = {**SMALL, "num_classes": 3, "in_chans": 1, "patch_size": 4}
    model = timm.create_model("ape_vit_s", pretrained=True, pretrained_cfg_overlay={"file": str(path)}, **changed)
    assert model(torch.randn(1, 1, 32, 32)).shape == (1, 3)


def test_policies_measure_from_the_size_of_the_weights(tmp_path: Path) -> None:
    """Weights trained at 32 in a model built for 64: positions are scaled to 4 x 4 tokens, not to 8 x 8."""
    source = randomize(timm.create_model("rope_vit_s", **SMALL))
    path = saved(source, tmp_path / "rope.safetensors")
    overlay = {"file": str(path), "num_classes": 5, "input_size": (3, 32, 32)}
    spec = {"name": "rope_mixed", "policy": "interpolate"}
    options = {**SMALL, "img_size": 64, "pos_encoding": spec}
    model = timm.create_model("rope_vit_s", pretrained=True, pretrained_cfg_overlay=overlay, **options).eval()
    source.pos_encoding["rope_mixed"].set_policy("interpolate")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(x), source(x))


def test_a_chosen_policy_outlives_loading(tmp_path: Path) -> None:
    official = {
        k.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): v
        for k, v in tiny_vit("ape").state_dict().items()
    }
    official["pos_embed"] = official.pop("pos_encoding.ape.table").flatten(0, 1)[None]
    default, chosen = tiny_vit("ape"), tiny_vit({"name": "ape", "policy": "nearest"})
    for model, policy in ((default, "bicubic"), (chosen, "nearest")):
        model.load_state_dict(official)
        assert model.pos_encoding["ape"].policy == policy


def test_original_jax_file(tmp_path: Path) -> None:
    """An .npz in the layout of google-research/vision_transformer."""
    import numpy as np

    reference = randomize(timm.create_model("vit_small_patch16_224", **SMALL))
    np.savez(tmp_path / "vit.npz", **jax_arrays(reference))
    ours = timm.create_model("ape_vit_s", checkpoint_path=tmp_path / "vit.npz", **SMALL).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), reference(x), atol=1e-5, rtol=1e-6)


def test_published_weights_are_those_of_timm() -> None:
    """Every weight source is one that timm lists, with its preprocessing."""
    tagged = timm.list_models("*_vit_*", module="vit_models", include_tags=True)
    sources = {n: timm.get_pretrained_cfg(n, allow_unregistered=False) for n in tagged if "." in n}
    assert len(sources) >= 12 + 18
    published = [n for n in timm.list_pretrained() if n.startswith(("vit_", "deit3_"))]
    known = {cfg.hf_hub_id: cfg for cfg in map(timm.get_pretrained_cfg, published)}
    # The learned table that RoPE-ViT compares with is not at timm; its recipe is that of the others.
    for size, word in (("s", "small"), ("b", "base"), ("l", "large")):
        alike = timm.get_pretrained_cfg(f"rope_vit_{size}.naver_in1k", allow_unregistered=False)
        known[f"naver-ai/deit_{word}_patch16_LS"] = alike
    for name, cfg in sources.items():
        theirs = known[cfg.hf_hub_id]
        assert (cfg.mean, cfg.std, cfg.crop_pct, cfg.input_size) == (
            theirs.mean,
            theirs.std,
            theirs.crop_pct,
            theirs.input_size,
        ), name
    assert {n.rsplit("_", 1)[0] for n in VIT_NAMES if timm.models.is_model_pretrained(n)} == {
        "rope_vit", "rope_axial_vit", "rope_ape_vit", "rope_axial_ape_vit", "ape_vit",
    }  # fmt: skip
