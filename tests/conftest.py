"""Shared by all tests: the names under test, random weights that hide nothing, and the slow tests last."""

from __future__ import annotations

import ast
import contextlib
import importlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
import timm
import torch

import visionpe
from visionpe.registry import _ENCODINGS

torch.set_num_threads(min(2, torch.get_num_threads()))

ENCODINGS = [name for name in visionpe.list_encodings() if _ENCODINGS[name].__module__.startswith("visionpe.")]
# What other backbones than a plain ViT can have.
ELSEWHERE = [name for name in ENCODINGS if not _ENCODINGS[name].carries]
# Of two names of one model the shorter.
VIT_NAMES = timm.list_models("*_vit_*", module="vit_models", exclude_filters="rope_mixed_*")


def pytest_configure(config: pytest.Config) -> None:
    """On a new machine yapf writes its grammar in the first process, before others that would read half of it start."""
    if not hasattr(config, "workerinput"):
        with contextlib.suppress(ImportError):
            importlib.import_module("yapf.yapflib.yapf_api")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _configs_as_they_are() -> Iterator[None]:
    """A Runner lays out its config four times, most of the time of a test; the processes that tests start still do."""
    with pytest.MonkeyPatch.context() as patch:
        with contextlib.suppress(ImportError):  # without OpenMMLab
            patch.setattr("yapf.yapflib.yapf_api.FormatCode", _checked)
        yield


def _checked(text: str, **style: Any) -> tuple[str, bool]:
    ast.parse(text)  # what yapf does not take is no Python
    return text, True


# Frequencies and scales that mean something as they are.
KEPT = ("freqs", "threshold", ".c", ".r1", ".r2")
# A sixteenth of a tiny width leaves two channels, of which a LayerNorm keeps a sign.
# Of two pairs an axis the policy `p` would leave out none, and of eight on few tokens those that hardly turn.
TINY_OPTIONS: dict[str, dict[str, Any]] = {
    "dpb": {"hidden": 8},
    "rope_vjepa": {"frames": False},
    "pope": {"theta": 10.0},
    "gta": {"max_freq": 4.0},
    "rope_mrope": {"theta": 10.0, "mrope_section": (0, 4, 4)},
    "pape": {"parabolas": 2},  # of many, on few tokens, each sees itself alone
}


def tiny_spec(spec: object) -> object:
    """The specification with what it needs at tiny widths."""
    return {"name": spec, **TINY_OPTIONS[spec]} if isinstance(spec, str) and spec in TINY_OPTIONS else spec


def randomize(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Draw every parameter at random, those too that start at zero or one: a term times 1e-5 would pass any test."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "gamma" in name or ("norm" in name and name.endswith("weight")):
                parameter.copy_(1 + 0.3 * noise)
            elif name.endswith(("pos_embed", "table", "cls_token", "reg_token")):
                parameter.copy_(0.5 * noise)
            elif name.endswith(
                ("qkv.weight", "in_proj.weight", "q_proj.weight", "k_proj.weight")
            ):  # sharp attention, or positions inside it hardly show
                parameter.copy_(1.5 * noise * parameter.shape[1] ** -0.5)
            elif re.search(r"mlp\.\d+\.\d+\.weight", name):  # networks of encodings, one a layer
                parameter.copy_(noise)
            elif ".by_tokens." in name and parameter.ndim == 2:  # of positions that go from block to block
                parameter.copy_(0.3 * noise)
            elif not name.endswith(KEPT) and parameter.ndim < 2:
                parameter.copy_(0.1 * noise)
            elif not parameter.any():  # zero at first
                parameter.copy_(noise)
    return model.eval()


def tiny_vit(pos_encoding: object, **kwargs: object) -> torch.nn.Module:
    """A ViT of 6 x 6 tokens with random weights."""
    options = dict(img_size=24, patch_size=4, embed_dim=32, depth=2, num_heads=2, num_classes=5)
    model = timm.create_model("none_vit_ti", pos_encoding=tiny_spec(pos_encoding), **{**options, **kwargs})
    return randomize(model)
