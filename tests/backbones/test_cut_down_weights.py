"""Files of whole classifiers in models without one: features_only and num_classes=0, in every layout and backbone."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from conftest import randomize
from jax_vit import jax_arrays
from safetensors.torch import save_file

import visionpe  # noqa: F401  registers the models

PLAIN = dict(embed_dim=32, depth=3, num_heads=2, img_size=64)
STAGES = dict(embed_dim=32, depths=(1, 1), num_heads=(2, 2), img_size=64)
MODELS = {
    "ape_vit_ti": PLAIN,
    "rope_vit_ti": PLAIN | dict(global_pool="avg"),
    "cpe_vit_ti": PLAIN | dict(reg_tokens=2, global_pool="map"),
    "vitdet_b": PLAIN | dict(window_size=3),
    "none_vitdet_b": PLAIN | dict(window_size=3, fc_norm=False),
    "rope_vitdet_b": PLAIN | dict(window_size=3, neck_channels=16),
    "swin_t": STAGES,
    "cswin_t": STAGES,
    "crossformer_t": STAGES,
    "rmt_t": STAGES | dict(embed_dim=(32, 32), mlp_ratio=2.0, decomposed=(True, False), decay_range=4.0),
}


def saved(model: torch.nn.Module, path: Path) -> Path:
    save_file({k: v.clone() for k, v in model.state_dict().items()}, path)
    return path


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_our_files(name: str, tmp_path: Path) -> None:
    source = randomize(timm.create_model(name, num_classes=5, **MODELS[name]))
    file, x = saved(source, tmp_path / "m.safetensors"), torch.randn(1, 3, 64, 64)
    headless = timm.create_model(name, checkpoint_path=file, num_classes=0, **MODELS[name]).eval()
    torch.testing.assert_close(headless.forward_features(x), source.forward_features(x))
    # By default features of CSWin and RMT have norms of their own.
    options = {**MODELS[name], "feature_norms": False} if name in ("cswin_t", "rmt_t") else MODELS[name]
    for indices in ((0, 1), (0,)):
        getter = timm.create_model(name, checkpoint_path=file, features_only=True, out_indices=indices, **options)
        wanted = source.forward_intermediates(x, list(indices), intermediates_only=True)
        for ours, theirs in zip(getter.eval()(x), wanted, strict=True):
            torch.testing.assert_close(ours, theirs)
        assert len(getter.model.state_dict()) < len(source.state_dict())


@pytest.mark.filterwarnings("ignore:the checkpoint has no classifier")
@pytest.mark.parametrize("target", ["ape_vit_ti", "ape_vitdet_b"])
@torch.no_grad()
def test_files_of_timm(target: str, tmp_path: Path) -> None:
    options = {"embed_dim": 32, "depth": 3, "num_heads": 2, "img_size": 64}
    theirs = randomize(timm.create_model("vit_small_patch16_224", num_classes=5, **options))
    file = saved(theirs, tmp_path / "timm.safetensors")
    options |= dict(window_size=0, pretrain_img_size=64) if "vitdet" in target else {}
    getter = timm.create_model(target, checkpoint_path=file, features_only=True, out_indices=(1,), **options).eval()
    assert len(getter.model.blocks) == 2
    x = torch.randn(1, 3, 64, 64)
    if "vitdet" not in target:  # which has no place for the class token
        wanted = theirs.forward_intermediates(x, [1], intermediates_only=True)[0]
        torch.testing.assert_close(getter(x)[0], wanted, atol=1e-5, rtol=1e-5)
    timm.create_model(target, checkpoint_path=file, num_classes=0, **options)


@pytest.mark.parametrize("what", [dict(features_only=True, out_indices=(0,)), dict(num_classes=0)])
@pytest.mark.parametrize("name", ["ape_vit_ti", "vitdet_b"])
def test_what_does_not_fit_is_refused_still(name: str, what: dict, tmp_path: Path) -> None:
    wider = timm.create_model(name, num_classes=5, **{**MODELS[name], "embed_dim": 48})
    file = saved(wider, tmp_path / "m.safetensors")
    with pytest.raises(RuntimeError, match="does not fit"):
        timm.create_model(name, checkpoint_path=file, **MODELS[name], **what)
    state = timm.create_model(name, num_classes=5, **MODELS[name]).state_dict()
    save_file({k: v.clone() for k, v in state.items()} | {"more.weight": torch.zeros(1)}, tmp_path / "more.safetensors")
    with pytest.raises(RuntimeError, match=r"not in the model: more\.weight"):
        timm.create_model(name, checkpoint_path=tmp_path / "more.safetensors", **MODELS[name], **what)


def test_a_classifier_keeps_its_norm() -> None:
    """Pooled after the norm or before it: two models, with a classifier or without."""
    pooled = timm.create_model("none_vit_ti", num_classes=5, **{**PLAIN, "global_pool": "avg"}).state_dict()
    for classes in (0, 5):
        with pytest.raises(RuntimeError, match=r"missing from the file: norm\.bias"):
            timm.create_model("none_vit_ti", num_classes=classes, **PLAIN).load_state_dict(pooled)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("class_token", [True, False])
@torch.no_grad()
def test_jax_files(channels: int, class_token: bool, tmp_path: Path) -> None:
    """As timm reads them, with the kernel adapted to the channels; whole, without classifier, and as features."""
    import numpy as np

    pool = dict(class_token=class_token, global_pool="token" if class_token else "avg", fc_norm=False)
    kwargs = {**PLAIN, **pool}
    source = randomize(timm.create_model("vit_small_patch16_224", num_classes=5, **kwargs))
    np.savez(tmp_path / "vit.npz", **jax_arrays(source))
    options = dict(in_chans=channels, checkpoint_path=str(tmp_path / "vit.npz"), **kwargs)
    theirs = timm.create_model("vit_small_patch16_224", num_classes=5, **options).eval()
    x = torch.randn(1, channels, 64, 64)
    ours = timm.create_model("ape_vit_s", num_classes=5, **options).eval()
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)
    headless = timm.create_model("ape_vit_s", num_classes=0, **options).eval()
    torch.testing.assert_close(headless.forward_features(x), theirs.forward_features(x), atol=1e-5, rtol=1e-5)
    getter = timm.create_model("ape_vit_s", features_only=True, out_indices=(1,), **options).eval()
    wanted = theirs.forward_intermediates(x, [1], intermediates_only=True)[0]
    torch.testing.assert_close(getter(x)[0], wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:the checkpoint has no classifier")
@torch.no_grad()
def test_jax_files_in_vitdet(tmp_path: Path) -> None:
    import numpy as np

    source = randomize(timm.create_model("vit_small_patch16_224", num_classes=5, **PLAIN))
    np.savez(tmp_path / "vit.npz", **jax_arrays(source))
    options = {**PLAIN, "img_size": 128, "pretrain_img_size": 64, "checkpoint_path": str(tmp_path / "vit.npz")}
    for what in (dict(num_classes=5), dict(num_classes=0), dict(features_only=True, out_indices=(0, 1))):
        model = timm.create_model("ape_vitdet_b", in_chans=1, **options, **what)
        encoding = getattr(model, "model", model).pos_encoding
        assert torch.equal(encoding.map.ape.table, source.pos_embed[0, 1:].unflatten(0, (4, 4)))  # as in the file
