"""Adapted EVA models are timm's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from adapted_models import check_plain, difference, original

import visionpe

SMALL: dict[str, Any] = {"embed_dim": 96, "num_heads": 3, "depth": 2, "img_size": 64}
# name: (keywords that make it small, pixels of a token)
CASES: dict[str, tuple[dict[str, Any], int]] = {
    "eva_giant_patch14_224": ({**SMALL, "img_size": 56}, 14),
    "eva02_tiny_patch14_224": ({**SMALL, "img_size": 56}, 14),
    "eva02_large_patch14_448": ({**SMALL, "img_size": 56}, 14),
    "eva02_base_patch16_clip_224": (SMALL, 16),
    "eva02_enormous_patch14_clip_224": ({**SMALL, "img_size": 56}, 14),
    "vit_small_patch16_dinov3": (SMALL, 16),
    "vit_small_plus_patch16_dinov3_qkvb": (SMALL, 16),
    "vit_pe_core_tiny_patch16_384": (SMALL, 16),
    "vit_pe_lang_large_patch14_448": ({**SMALL, "img_size": 56}, 14),
    "vit_pe_spatial_tiny_patch16_512": (SMALL, 16),
    "vit_small_patch16_rope_224": (SMALL, 16),
    "vit_small_patch16_rope_ape_224": (SMALL, 16),
    "vit_small_patch16_rope_mixed_224": (SMALL, 16),
    "vit_small_patch16_rope_mixed_ape_224": (SMALL, 16),
    "vit_medium_patch16_rope_reg1_gap_256": (SMALL, 16),
    "vit_small_patch16_lingbot": (SMALL, 16),
    "vit_base_patch16_sapiens2": ({**SMALL, "embed_dim": 128, "num_heads": 4, "num_kv_heads": 2}, 16),
}


@pytest.mark.parametrize("name", CASES)
def test_family(name: str) -> None:
    others = "alibi" if "rope" in name or "dinov3" in name else "rope_axial"
    check_plain(name, *CASES[name], spec=others)


def test_a_built_size_that_patches_do_not_divide() -> None:
    """As in timm what no patch covers is left out, at that size alone."""
    model = original("eva02_tiny_patch14_224", {"img_size": 64, "depth": 1})
    adapted = visionpe.adapt(model)
    assert difference(model, adapted, (64, 64)) <= 1e-6
    with pytest.raises(ValueError, match="no multiple of patch_size"):
        adapted(torch.randn(1, 3, 64, 78))
