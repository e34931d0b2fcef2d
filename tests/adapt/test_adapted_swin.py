"""Adapted Swins are timm's Swins."""

from __future__ import annotations

from typing import Any

import pytest
import timm
from adapted_models import difference, original
from adapted_pyramids import check_compiled, check_exported, check_pyramid, check_windows_that_divide

import visionpe

TINY = {"embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)}
# name: keywords that make it small
CASES: dict[str, dict[str, Any]] = {
    "swin_tiny_patch4_window7_224": {**TINY, "img_size": 56},
    "swin_base_patch4_window12_384": {**TINY, "img_size": (48, 96)},
    "swin_s3_tiny_224": {
        **TINY,
        "img_size": 112,
        "window_size": (7, 14, 7),
        "depths": (1, 3, 2),
        "num_heads": (2, 4, 8),
    },
    "swin_large_patch4_window7_224": {**TINY, "img_size": 56, "head_dim": 8, "always_partition": True},
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return request.param, CASES[request.param]


def test_pyramid(case: tuple[str, dict[str, Any]]) -> None:
    check_pyramid(*case, policy="clamp")


def test_other_sizes_are_those_of_timm(case: tuple[str, dict[str, Any]]) -> None:
    check_windows_that_divide(*case, tolerance=1e-6)


def test_dynamic_sizes_are_those_of_timm() -> None:
    """timm's dynamic windows move as at the trained size; where all do, as here, that is the same."""
    name, keywords = "swin_tiny_patch4_window7_224", {**TINY, "img_size": 112}
    model = original(name, keywords)
    dynamic = timm.create_model(name, num_classes=5, dynamic_img_size=True, **keywords).eval()
    dynamic.load_state_dict(model.state_dict())
    for size in ((112, 168), (168, 224)):
        assert difference(dynamic, visionpe.adapt(model), size) <= 1e-6


def test_padding_is_seen_by_nobody() -> None:
    """A map smaller than a window is as if the window were smaller, with the middle of its table."""
    name = "swin_tiny_patch4_window7_224"
    model = original(name, {**TINY, "img_size": 56})
    small = timm.create_model(name, num_classes=5, **TINY, img_size=(24, 28)).eval()
    state = model.state_dict()
    for key in [key for key in state if key.endswith("bias_table")]:
        height, width = small.get_submodule(key.rpartition(".")[0]).window_size
        square = state[key].view(13, 13, -1)
        state[key] = square[7 - height : 6 + height, 7 - width : 6 + width].flatten(0, 1)
    small.load_state_dict(state)
    assert [layer.blocks[0].window_size for layer in small.layers] == [(6, 7), (3, 4)]
    assert difference(small, visionpe.adapt(model), (24, 28)) <= 1e-6


def test_set_input_size_is_that_of_timm() -> None:
    """Windows follow the nominal size and tables are resized, here by their policy."""
    model = original("swin_tiny_patch4_window7_224", {**TINY, "img_size": 56})
    adapted = visionpe.adapt(model)
    for each in (model, adapted):
        each.set_input_size((112, 56))
    theirs = [layer.blocks[1].window_size for layer in model.layers]
    assert [layer.window_size for layer in adapted.layers] == theirs == [(14, 7), (14, 7)]
    for layer in model.layers:
        for block in layer.blocks:
            assert block.attn.relative_position_bias_table.shape == (27 * 13, block.attn.num_heads)
    assert adapted.layers[0].pos_encoding.inside["window"].parts[0].table.shape[-2:] == (27, 13)
    adapted.load_state_dict(model.state_dict())
    assert difference(model, adapted, (112, 56)) <= 1e-6
    adapted.set_input_size(56, always_partition=True)
    assert all(layer.always_partition for layer in adapted.layers)


@pytest.mark.long
def test_compile_and_export() -> None:
    adapted = visionpe.adapt(original("swin_tiny_patch4_window7_224", {**TINY, "depths": (2, 1), "img_size": 56}))
    check_exported(adapted, [(40, 52), (56, 56), (9, 110), (64, 32)])
    check_compiled(adapted, [(56, 56), (40, 52)])
