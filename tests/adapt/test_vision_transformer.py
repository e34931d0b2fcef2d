"""Adapted ViTs are timm's ViTs."""

from __future__ import annotations

from typing import Any

import pytest
import timm
from adapted_models import check_files, check_parity, check_sizes, check_swaps, difference, original

import visionpe

SMALL = {"embed_dim": 96, "num_heads": 3, "depth": 2}
# name: (keywords that make it small, pixels of a token)
CASES: dict[str, tuple[dict[str, Any], int]] = {
    "vit_tiny_patch16_224": ({"depth": 2, "img_size": (48, 80)}, 16),
    "vit_base_patch16_clip_quickgelu_224": ({**SMALL, "img_size": 64}, 16),
    "vit_base_patch16_siglip_224": ({**SMALL, "img_size": 64}, 16),
    "vit_base_patch16_siglip_gap_224": ({**SMALL, "img_size": 64}, 16),
    "vit_small_patch14_dinov2": ({**SMALL, "img_size": 56}, 14),
    "vit_small_patch14_reg4_dinov2": ({**SMALL, "img_size": 56}, 14),
    "deit3_small_patch16_224": ({**SMALL, "img_size": 64}, 16),
    "deit_tiny_distilled_patch16_224": ({"depth": 2, "img_size": 64}, 16),
    "vit_base_patch16_rpn_224": ({**SMALL, "img_size": 64}, 16),
    "vit_small_patch16_18x2_224": ({**SMALL, "img_size": 64}, 16),
    "vit_base_patch16_xp_224": ({**SMALL, "img_size": 64}, 16),
    "vit_small_r26_s32_224": ({**SMALL, "img_size": 64}, 32),
    "vit_dlittle_patch16_reg1_gap_256": ({**SMALL, "img_size": 64}, 16),
    "vit_dwee_patch16_reg1_gap_256": ({"embed_dim": 96, "num_heads": 3, "depth": 2, "img_size": 64}, 16),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any], int]:
    return (request.param, *CASES[request.param])


def trained(model: Any) -> tuple[int, int]:
    return tuple(model.patch_embed.img_size)


def test_parity(case: tuple[str, dict[str, Any], int]) -> None:
    name, keywords, _ = case
    model = original(name, keywords)
    check_parity(model, visionpe.adapt(model), trained(model), tolerance=2e-6)


def test_other_sizes_are_those_of_timm(case: tuple[str, dict[str, Any], int]) -> None:
    name, keywords, token = case
    model = original(name, keywords)
    dynamic = timm.create_model(name, num_classes=5, dynamic_img_size=True, **keywords).eval()
    dynamic.load_state_dict(model.state_dict())
    for size in ((5 * token, 7 * token), (token, 2 * token)):
        assert difference(dynamic, visionpe.adapt(model), size) <= 2e-6


def test_sizes_swaps_and_files(case: tuple[str, dict[str, Any], int]) -> None:
    name, keywords, token = case
    model = original(name, keywords)
    sizes = [trained(model), (320, 480) if 480 % token == 0 else (322, 476), (token, 2 * token)]
    check_sizes(visionpe.adapt(model), sizes)
    check_swaps(model, sizes[::2])
    check_files(name, keywords, trained(model))
