"""FLOPs by the formula, whatever kernel attention takes."""

from __future__ import annotations

import pytest
import timm
import torch

from visionpe.scaling.flops import count_flops

DIM, DEPTH, CLASSES = 48, 2, 5


def wanted(tokens: int, spatial: int, patch: int) -> int:
    """Of a plain ViT, a multiplication and an addition counting two."""
    block = 2 * tokens * DIM * (3 * DIM + DIM + 8 * DIM) + 4 * tokens**2 * DIM
    return 2 * spatial * 3 * patch**2 * DIM + DEPTH * block + 2 * DIM * CLASSES


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("pixels", [32, 96], ids=["short", "long"])  # 17 and 145 tokens: two kernels
@pytest.mark.parametrize(
    "name", ["ape_vit_ti", "rope_axial_vit_ti", "alibi_vit_ti", "rpb_vit_ti", "vit_tiny_patch16_224"]
)
@torch.no_grad()
def test_flops_are_those_of_the_formula(name: str, pixels: int, fused: bool) -> None:
    timm.layers.set_fused_attn(fused)
    try:
        options = {"embed_dim": DIM, "depth": DEPTH, "num_heads": 3, "num_classes": CLASSES, "patch_size": 8}
        model = timm.create_model(name, img_size=pixels, **options).eval()
    finally:
        timm.layers.set_fused_attn(True)
    side = pixels // 8
    found = count_flops(model, torch.randn(1, 3, pixels, pixels))
    assert found == wanted(side**2 + 1, side**2, 8)
