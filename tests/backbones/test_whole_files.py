"""Files are read whole: what stands around the weights tells whose code they come from, and nothing of it runs."""

from __future__ import annotations

import argparse
import logging
import os
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from conftest import randomize, tiny_vit
from safetensors.torch import save_file

import visionpe
from visionpe.backbones.shared.loading import checkpoint_filter_fn
from visionpe.backbones.vit import weights
from visionpe.utils.checkpoints import TRUST, InputError

TINY = dict(img_size=24, patch_size=4, embed_dim=32, depth=2, num_heads=2, num_classes=5)
AXIAL = "rope_axial_ape_vit_s"


def shared_layout(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """As RoPE-ViT and timm both name the weights of fixed rotary frequencies with a table."""
    state = {
        key.replace(".ls1.", ".gamma_1.").replace(".ls2.", ".gamma_2."): v for key, v in model.state_dict().items()
    }
    state = {key.replace("_1.gamma", "_1").replace("_2.gamma", "_2"): value for key, value in state.items()}
    state["pos_embed"] = state.pop("pos_encoding.ape.table").flatten(0, 1)[None].clone()
    return state


WAYS: dict[str, Callable[[Path, dict], torch.nn.Module]] = {
    "checkpoint_path": lambda path, state: timm.create_model(AXIAL, checkpoint_path=path, **TINY),
    "pretrained": lambda path, state: timm.create_model(
        AXIAL, pretrained=True, pretrained_cfg_overlay={"file": str(path), "num_classes": 5}, **TINY
    ),
    "features_only": lambda path, state: timm.create_model(
        AXIAL, checkpoint_path=path, features_only=True, out_indices=(1,), **TINY
    ),
    "load_state_dict": lambda path, state: loaded(timm.create_model(AXIAL, **TINY), state),
}


def loaded(model: torch.nn.Module, state: dict) -> torch.nn.Module:
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_the_wrapper_tells_authors_from_timm(way: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Antialiasing is timm's; the authors' code resizes the table without."""
    source, x = tiny_vit("rope_axial+ape", init_values=0.1), torch.randn(1, 3, 40, 32)
    state = shared_layout(source)
    for content, policy in (
        ({"model": state, "args": argparse.Namespace(lr=1.0)}, "bicubic"),
        (state, "bicubic_antialias"),
    ):
        weights._tell_once.cache_clear()
        caplog.clear()
        torch.save(content, tmp_path / "file.pth")
        ours = WAYS[way](tmp_path / "file.pth", content).eval()
        visionpe.set_policy(source, policy)
        if way == "features_only":
            (theirs,) = source.forward_intermediates(x, indices=(1,), intermediates_only=True)
            torch.testing.assert_close(ours(x)[0], theirs, atol=1e-5, rtol=1e-6)
        else:
            torch.testing.assert_close(ours(x), source(x), atol=1e-5, rtol=1e-6)
        said = [r for r in caplog.records if r.levelno == logging.WARNING and "pos_embed is resized as" in r.message]
        assert len(said) == (policy != "bicubic")


@torch.no_grad()
def test_deits_own_files(tmp_path: Path) -> None:
    """Their keys are those of timm's ViT; wrapped, they are of the code that resizes without antialiasing."""
    theirs = randomize(timm.create_model("vit_small_patch16_224", dynamic_img_size=True, **TINY))
    for name, content, policy in (
        ("deit.pth", {"model": theirs.state_dict()}, "bicubic"),
        ("timm.pth", {"state_dict": theirs.state_dict()}, "bicubic_antialias"),
        ("bare.pth", theirs.state_dict(), "bicubic_antialias"),
    ):
        torch.save(content, tmp_path / name)
        ours = timm.create_model("ape_vit_s", checkpoint_path=tmp_path / name, **TINY).eval()
        assert ours.pos_encoding["ape"].policy == policy
    x = torch.randn(1, 3, 32, 40)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("theirs", ["deit3_small_patch16_224", "vit_small_patch16_rope_mixed_ape_224"])
def test_timms_keys_tell_under_any_wrapper(theirs: str, tmp_path: Path) -> None:
    torch.save({"model": timm.create_model(theirs, **TINY).state_dict()}, tmp_path / "mine.pth")
    name = "ape_vit_s" if "deit" in theirs else "rope_ape_vit_s"
    ours = timm.create_model(name, checkpoint_path=tmp_path / "mine.pth", **TINY)
    assert ours.pos_encoding["ape"].policy == "bicubic_antialias"


def test_weights_that_timm_hosts_are_timms(caplog: pytest.LogCaptureFixture) -> None:
    weights._tell_once.cache_clear()
    model = timm.create_model(AXIAL, **TINY)
    assert model.pretrained_cfg["hf_hub_id"].startswith("timm/")
    checkpoint_filter_fn(shared_layout(tiny_vit("rope_axial+ape", init_values=0.1)), model)
    assert model.pos_encoding["ape"].policy == "bicubic_antialias"
    assert not caplog.records


def test_only_ambiguous_files_are_spoken_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights._tell_once.cache_clear()
    source = tiny_vit("rope_axial", init_values=0.1)
    state = {
        k.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): v for k, v in source.state_dict().items()
    }
    loaded(timm.create_model("rope_axial_vit_s", **TINY), state)
    loaded(timm.create_model("ape_vit_s", **TINY), tiny_vit("ape").state_dict())
    assert not caplog.records


def test_timms_own_models_read_as_before(tmp_path: Path) -> None:
    source = randomize(timm.create_model("vit_small_patch16_224", **TINY))
    torch.save(
        {"state_dict": {}, "state_dict_ema": {f"module.{k}": v for k, v in source.state_dict().items()}},
        tmp_path / "a.pth",
    )
    for name, content in (("b.pth", source.state_dict()), ("c.pth", {"model": source.state_dict(), "epoch": 3})):
        torch.save(content, tmp_path / name)
    save_file(source.state_dict(), tmp_path / "d.safetensors")
    for path in sorted(tmp_path.iterdir()):
        other = timm.create_model("vit_small_patch16_224", checkpoint_path=str(path), **TINY)
        assert all(torch.equal(value, source.state_dict()[key]) for key, value in other.state_dict().items())
    with pytest.raises(FileNotFoundError):
        timm.create_model("vit_small_patch16_224", checkpoint_path=str(tmp_path / "none.pth"), **TINY)


def test_configurations_of_yacs_are_read_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Swin's training code and SeqPE's keep one beside the weights."""
    module = types.ModuleType("yacs.config")
    module.CfgNode = type("CfgNode", (dict,), {"__module__": "yacs.config"})  # type: ignore[attr-defined]
    source = tiny_vit("ape")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
        patch.setitem(sys.modules, "yacs.config", module)
        config = module.CfgNode(LR=0.1, MODEL=module.CfgNode(TYPE="vit"))
        config.__dict__["__immutable__"] = True
        torch.save({"model": source.state_dict(), "config": config}, tmp_path / "best_model.pth")
    ours = timm.create_model("ape_vit_s", checkpoint_path=tmp_path / "best_model.pth", **TINY)
    assert torch.equal(ours.cls_token, source.cls_token)


class Planted:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.mark}",)


def test_pickles_of_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As detectron2 publishes them; one that would run code runs only where the user said so."""
    source, path = tiny_vit("ape"), tmp_path / "model.pkl"
    arrays = {key: value.numpy() for key, value in source.state_dict().items()}
    content = {"model": arrays, "__author__": "someone", "matching_heuristics": True, "iteration": np.int64(7)}
    path.write_bytes(pickle.dumps(content))
    ours = timm.create_model("ape_vit_s", checkpoint_path=path, **TINY)
    assert torch.equal(ours.cls_token, source.cls_token)
    torch.save({"model": source.state_dict()}, path)  # torch's format under that name
    assert torch.equal(timm.create_model("ape_vit_s", checkpoint_path=path, **TINY).cls_token, source.cls_token)

    path.write_bytes(pickle.dumps({**content, "hook": Planted(tmp_path / "ran")}))
    with pytest.raises(InputError, match=r"it holds posix\.system, which can run code.*--trust-checkpoints"):
        timm.create_model("ape_vit_s", checkpoint_path=path, **TINY)
    assert not (tmp_path / "ran").exists()
    monkeypatch.setenv(TRUST, "1")
    timm.create_model("ape_vit_s", checkpoint_path=path, **TINY)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("spec", "written"),
    [("lape(sincos)", r"'lape\(sincos\)'"), ("dropped(lape)+alibi", r"'dropped\(lape\(ape\)\)\+alibi'")],
)
def test_messages_spell_encodings_as_specifications_do(spec: str, written: str) -> None:
    with pytest.raises(RuntimeError, match=rf"does not fit a ViT with pos_encoding={written};"):
        tiny_vit(spec).load_state_dict(timm.create_model("none_vit_ti", **{**TINY, "depth": 3}).state_dict())
    with pytest.raises(ValueError, match=r"pos_encoding='lape\(sincos\)\+lape\(ape\)' names the same encoding twice"):
        tiny_vit("lape(sincos)+lape(ape)")
