"""Adapted SwinV2s are timm's."""

from __future__ import annotations

from typing import Any

import pytest
from adapted_models import difference, mostly_long, original
from adapted_pyramids import (
    check_compiled,
    check_exported,
    check_pyramid,
    check_set_input_size,
    check_windows_that_divide,
)

import visionpe

TINY = {"embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)}
PRETRAINED = {**TINY, "img_size": 64, "pretrained_window_sizes": (6, 3)}
# name: keywords that make it small
CASES: dict[str, dict[str, Any]] = {
    "swinv2_tiny_window8_256": {**TINY, "img_size": 64},
    "swinv2_base_window12to16_192to256": {**PRETRAINED, "window_size": (8, 8)},
    "swinv2_large_window12to24_192to384": {**PRETRAINED, "img_size": (32, 64), "window_size": 4, "qkv_bias": False},
}


@pytest.mark.parametrize("name", mostly_long(CASES, "swinv2_tiny_window8_256", "swinv2_large_window12to24_192to384"))
def test_pyramid(name: str) -> None:
    check_pyramid(name, CASES[name], policy="clamp")


@pytest.mark.parametrize("name", CASES)
def test_other_sizes_are_those_of_timm(name: str) -> None:
    check_windows_that_divide(name, CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_set_input_size_is_that_of_timm(name: str) -> None:
    """Windows follow the nominal size; the network measures by the pre-training's, or by the window at hand."""
    model, adapted, size = check_set_input_size(name, CASES[name])
    other = "interpolate" if "12to" in name else "extrapolate"
    assert difference(model, visionpe.set_policy(adapted, other), size) > 1e-4


@pytest.mark.long
def test_compile_and_export() -> None:
    adapted = visionpe.adapt(original("swinv2_tiny_window8_256", {**TINY, "depths": (2, 1), "img_size": 64}))
    check_exported(adapted, [(40, 52), (64, 64), (9, 110), (64, 32)])
    check_compiled(adapted, [(64, 64), (40, 52)])
