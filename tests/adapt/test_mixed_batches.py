"""Adapted ViTs on images of several sizes in one batch: each as if it were alone."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from adapted_models import original
from torch import Tensor

import visionpe

SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 2, "img_size": 32, "patch_size": 8}
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("vit_small_patch16_224", SMALL),
    ("vit_base_patch16_siglip_224", SMALL),
    ("vit_small_patch14_reg4_dinov2", SMALL),
    ("vit_small_patch16_dinov3", SMALL),
    ("eva02_tiny_patch14_224", {**SMALL, "mlp_ratio": 2}),
    ("vit_small_patch16_rope_mixed_224", SMALL),
    ("deit_tiny_distilled_patch16_224", SMALL),
    ("beit_base_patch16_224", SMALL),
    ("vit_relpos_small_patch16_224", SMALL),
    ("cait_xxs24_224", SMALL),
    ("vit_dpwee_patch16_reg1_gap_256", SMALL),
]


def pictures() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    sizes = [(32, 32), (16, 40), (32, 32), (48, 8)]
    return [torch.randn(3, *size, generator=generator) for size in sizes]


@pytest.mark.parametrize(("name", "keywords"), MODELS, ids=[name for name, _ in MODELS])
@torch.no_grad()
def test_each_as_alone(name: str, keywords: dict[str, Any]) -> None:
    model, images = visionpe.adapt(original(name, keywords)).eval(), pictures()
    policies = ["default", *[policy for policy in visionpe.policies(model) if policy in ("temperature", "interpolate")]]
    for policy in policies:
        visionpe.set_policy(model, policy)
        expected = torch.cat([model(image[None]) for image in images])
        for batching in ("pad", "pack"):
            torch.testing.assert_close(model(images, batching=batching), expected, atol=1e-5, rtol=1e-4)
    final, maps = model.forward_intermediates(images)
    own_final, own_maps = model.forward_intermediates(images[1][None])
    torch.testing.assert_close(final[1], own_final[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(maps[-1][1], own_maps[-1][0], atol=1e-5, rtol=1e-4)


def test_stochastic_depth_is_of_padded_images() -> None:
    """timm's blocks drop a branch for a row of the tensor, which packed is that of all images."""
    model = visionpe.adapt(timm.create_model("vit_tiny_patch16_224", drop_path_rate=0.2, **SMALL)).train()
    images = pictures()
    assert not model._tokens(images)[1].packed
    with pytest.raises(ValueError, match="batching='pack': in training"):
        model(images, batching="pack")
    assert model.eval()._tokens(images)[1].packed


def test_a_hybrid_takes_no_patches() -> None:
    model = visionpe.adapt(timm.create_model("vit_tiny_r_s16_p8_224", img_size=64)).eval()
    with torch.no_grad():
        assert model([torch.randn(3, 64, 64), torch.randn(3, 64, 96)]).shape == (2, 1000)
    with pytest.raises(TypeError, match="HybridEmbed sees more than single patches"):
        model(torch.randn(1, 4, 768), patch_coord=torch.zeros(1, 4, 2))
