"""Adapted SwinV2-CRs are timm's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from adapted_models import mostly_long, original
from adapted_pyramids import (
    check_compiled,
    check_exported,
    check_pyramid,
    check_set_input_size,
    check_windows_that_divide,
)

import visionpe

TINY = {"embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)}
# name: keywords that make it small
CASES: dict[str, dict[str, Any]] = {
    "swinv2_cr_tiny_224": {**TINY, "img_size": 64, "window_size": 8},
    "swinv2_cr_small_ns_224": {**TINY, "img_size": (32, 64), "window_ratio": 2},
    "swinv2_cr_giant_224": {**TINY, "img_size": 64, "window_size": 8, "depths": (1, 6)},
}


@pytest.mark.parametrize("name", mostly_long(CASES, "swinv2_cr_tiny_224", "swinv2_cr_small_ns_224"))
def test_pyramid(name: str) -> None:
    check_pyramid(name, CASES[name], policy="clamp")


@pytest.mark.parametrize("name", CASES)
def test_other_sizes_are_those_of_timm(name: str) -> None:
    check_windows_that_divide(name, CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_set_input_size_is_that_of_timm(name: str) -> None:
    """Windows follow the nominal size, and offsets are counted in tokens whatever the window."""
    check_set_input_size(name, CASES[name])


def test_its_network_drops_in_training_as_before() -> None:
    """A part of the hidden channels, by which outputs differ from pass to pass."""
    adapted = visionpe.adapt(original("swinv2_cr_tiny_224", {**TINY, "img_size": 64, "window_size": 8})).train()
    rates = {module.p for module in adapted.stages[0].pos_encoding.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.125}
    x = torch.randn(1, 3, 64, 64)
    assert not torch.equal(adapted(x), adapted(x))


@pytest.mark.long
def test_compile_and_export() -> None:
    keywords = {**TINY, "depths": (2, 1), "img_size": 64, "window_size": 8}
    adapted = visionpe.adapt(original("swinv2_cr_tiny_ns_224", keywords))
    check_exported(adapted, [(40, 52), (64, 64), (9, 110), (64, 32)])
    check_compiled(adapted, [(64, 64), (40, 52)])
