"""Adapted ViTs are timm's ViTs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from adapted_models import check_plain, images, original

import visionpe

SMALL = {"embed_dim": 96, "num_heads": 3, "depth": 2}
# name: (keywords that make it small, pixels of a token)
CASES: dict[str, tuple[dict[str, Any], int]] = {
    "vit_tiny_patch16_224": ({"depth": 2, "img_size": (80, 112)}, 16),
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
    "vit_tiny_r_s16_p8_224": ({**SMALL, "img_size": 64}, 32),
    "vit_small_r26_s32_224": ({**SMALL, "img_size": 64}, 32),
    "vit_dlittle_patch16_reg1_gap_256": ({**SMALL, "img_size": 64}, 16),
    "vit_dwee_patch16_reg1_gap_256": ({"embed_dim": 96, "num_heads": 3, "depth": 2, "img_size": 64}, 16),
}


# Behind a whole ResNet in the long suite, behind its first layers alone in the short one.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name == "vit_small_r26_s32_224" else name for name in CASES]
)
def test_family(name: str) -> None:
    check_plain(name, *CASES[name])


@torch.no_grad()
def test_features_beside_no_prefix_are_those_of_timm() -> None:
    """Where there is no prefix token none is given, though it be asked for."""
    model = original("vit_base_patch16_siglip_224", {**SMALL, "img_size": 64})
    for given in (model, visionpe.adapt(model)):
        features = given.forward_intermediates(images((64, 64)), return_prefix_tokens=True, intermediates_only=True)
        assert [f.shape for f in features] == [(2, 96, 4, 4)] * 2
