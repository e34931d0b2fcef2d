"""What the programs of this folder share: small models, and a list of what was tried with each library."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import timm
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_backbones import MODELS

import visionpe  # noqa: F401

Row = dict[str, str]
CHECKS: list[tuple[str, str, Callable[[], Any]]] = []
# An encoding of each kind: rotary, offsets, convolutions, absolute, networks, decomposed.
ENCODINGS = {
    "none_vit_ti": ("rope_mixed", "rope_norm", "rpb", "cpb", "ape+cpe", "fire", "irpe"),
    "swin_t": ("rpb", "rope_mixed"),
    "cswin_t": ("lepe", "rope_axial"),
    "vitdet_b": ("decomposed+ape", "rope_axial"),
    "crossformer_t": ("dpb", "rope_mixed"),
    "cpvt_v2_s": ("cpe",),
    "mit_b0": ("none",),
    "cvt_13": ("rpb",),
}
SIDE = 32


def check(library: str, what: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Put a function on the list; it raises where something does not work, and may return a remark."""

    def register(function: Callable[[], Any]) -> Callable[[], Any]:
        CHECKS.append((library, what, function))
        return function

    return register


def build(family: str, encoding: str, **keywords: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(family, pos_encoding=encoding, **{"num_classes": 3, **MODELS[family], **keywords})


def models(**keywords: Any) -> Iterator[tuple[str, torch.nn.Module]]:
    """Every model of the list, with its name."""
    for family, encodings in ENCODINGS.items():
        for encoding in encodings:
            yield f"{family} {encoding}", build(family, encoding, **keywords).eval()


def images(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def same(name: str, found: torch.Tensor, wanted: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert found.shape == wanted.shape, f"{name}: {tuple(found.shape)} for {tuple(wanted.shape)}"
    apart = float((found - wanted).abs().max())
    assert apart <= tolerance, f"{name}: {apart:.2g} apart"


def installed(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def run(library: str, what: str, function: Callable[[], Any]) -> Row:
    """One row of the table."""
    row = {"library": library, "version": installed(library), "what": what}
    if not row["version"]:
        return row | {"result": "not installed"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            remark = function()
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        return row | {"result": f"{type(error).__name__}: {lines[0][:200]}"}
    return row | {"result": f"works{f', {remark}' if remark else ''}"}
