"""Weights from the hub and from addresses: one line where there is no network, and files that are looked at first."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file

import visionpe  # noqa: F401  (registers the models)
from visionpe.utils import timm_hub
from visionpe.utils.errors import InputError
from visionpe.utils.timm_models import create_model

TINY = {"depth": 1, "embed_dim": 16, "num_heads": 2, "img_size": 32}
HUB, FILE = "someone/rope_vit_ti", "model.safetensors"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []

    def ask(url: str, **_: object) -> None:
        asked.append(url)
        raise ConnectionError("no such host")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", ask)
    monkeypatch.setattr(timm_hub, "_failed", (float("-inf"), ""))
    # The hub itself would be asked without a word and without retries, where the file is in the cache.
    monkeypatch.setenv("HF_ENDPOINT", "http://localhost:9")
    return asked


def cached(folder: Path, content: bytes, filename: str = FILE) -> dict[str, object]:
    """Keywords that load a file which was fetched before."""
    repository, commit = folder / f"models--{HUB.replace('/', '--')}", "a" * 40
    (repository / "snapshots" / commit).mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    (repository / "snapshots" / commit / filename).write_bytes(content)
    overlay = {"hf_hub_id": HUB, "source": "hf-hub"}
    return {"pretrained": True, "pretrained_cfg_overlay": overlay, "cache_dir": str(folder), **TINY}


def weights(folder: Path, **changes: torch.Tensor) -> bytes:
    state = timm.create_model("rope_vit_ti", **TINY).state_dict()
    save_file({**state, **changes}, folder / "w.safetensors")
    return (folder / "w.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["rope_vit_s", "resnet18", "hf-hub:timm/resnet18.a1_in1k"])
def test_no_network_is_one_line_at_once(name: str, tmp_path: Path, no_network: list[str]) -> None:
    start = time.monotonic()
    with pytest.raises(InputError, match=r"weights '\S+' cannot be fetched \(.*no such host\); allowed: a network, "):
        timm.create_model(name, pretrained=True, cache_dir=str(tmp_path))
    assert time.monotonic() - start < 10
    assert len(no_network) == 1  # it is not asked for every file that there may be


def test_what_was_fetched_before_needs_no_network(tmp_path: Path) -> None:
    options = cached(tmp_path / "hub", weights(tmp_path))
    model = timm.create_model("rope_vit_ti", **options)
    assert model.blocks[0].mlp.fc1.weight.isfinite().all()


@pytest.mark.parametrize(
    ("content", "filename", "words"),
    [
        (b"", FILE, "is empty"),
        (b"<!DOCTYPE html><html>404</html>", FILE, "a page of HTML"),
        (b"version https://git-lfs.github.com/spec/v1\n", "pytorch_model.bin", "pointer of Git LFS"),
    ],
)
def test_files_in_the_cache_are_looked_at(content: bytes, filename: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        timm.create_model("rope_vit_ti", **cached(tmp_path, content, filename))


def test_addresses(tmp_path: Path) -> None:
    overlay = {"url": "http://localhost:9/w.pth", "hf_hub_id": None, "source": "url"}
    options = {"pretrained": True, "pretrained_cfg_overlay": overlay, "cache_dir": str(tmp_path), **TINY}
    with pytest.raises(InputError, match=r"weights 'http://localhost:9/w.pth' cannot be fetched"):
        timm.create_model("rope_vit_ti", **options)
    (tmp_path / "w.pth").write_bytes(b"<html>404</html>")  # by a proxy, an earlier time
    with pytest.raises(InputError, match=r"w.pth' is cut off, or no file of weights \(a page of HTML"):
        timm.create_model("rope_vit_ti", **options)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value: float, tmp_path: Path) -> None:
    key, word = "blocks.0.attn.qkv.weight", "NaN" if value != value else "infinity"
    bad = torch.zeros(48, 16).index_fill_(0, torch.tensor([3]), value)
    content = weights(tmp_path, **{key: bad, "norm.bias": bad[3].clone()})
    message = rf"w.safetensors' holds {word} in {key} \(and 1 more"
    with pytest.warns(UserWarning, match=message):
        create_model("rope_vit_ti", tmp_path / "w.safetensors", **TINY)
    with pytest.warns(UserWarning, match=rf"{HUB}' holds {word} in {key}"):
        timm.create_model("rope_vit_ti", **cached(tmp_path / "hub", content))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weights(tmp_path)
        create_model("rope_vit_ti", tmp_path / "w.safetensors", **TINY)
