"""Small models of every family."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import timm
import torch
from torch import nn

import visionpe  # noqa: F401  (registers the models)
from visionpe.sparse import Voxels

TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("none_vit_ti", dict(img_size=24, patch_size=4, embed_dim=32, depth=2, num_heads=2, num_classes=5)),
    "vitdet": (
        "vitdet_b",
        dict(
            img_size=24,
            patch_size=4,
            embed_dim=32,
            depth=2,
            num_heads=2,
            num_classes=5,
            window_size=3,
            global_blocks=(1,),
        ),
    ),
    "swin": ("swin_t", dict(img_size=24, embed_dim=16, depths=(2, 1), num_heads=(2, 2), num_classes=5, window_size=3)),
    "cswin": ("cswin_t", dict(img_size=32, embed_dim=16, depths=(1, 2, 1), num_heads=(2, 2, 2), num_classes=5)),
    "crossformer": ("crossformer_t", dict(img_size=32, embed_dim=16, depths=(2, 1), num_heads=(2, 2), num_classes=5)),
    "rmt": (
        "rmt_t",
        dict(
            img_size=32,
            embed_dim=(16, 16, 16),
            depths=(1, 2, 1),
            num_heads=(2, 2, 2),
            num_classes=5,
            mlp_ratio=2.0,
            decomposed=(True, False, True),
            decay_range=4.0,
            projection=16,
        ),
    ),
    "cpvt": (
        "cpvt_v2_s",
        dict(img_size=32, embed_dim=16, depths=(1, 2), num_heads=(2, 2), num_classes=5),
    ),
    "mit": ("mit_b0", dict(img_size=32, embed_dim=16, depths=(1, 2), num_heads=(2, 2), num_classes=5)),
    "cvt": ("cvt_13", dict(img_size=32, embed_dim=16, depths=(1, 2), num_heads=(2, 2), num_classes=5)),
    "swin3d": (
        "swin3d_s",
        dict(embed_dims=(24, 24), depths=(2, 1), num_heads=(2, 2), window_size=3, num_classes=5, cloud_size=16),
    ),
    "swin3d_unet": (
        "swin3d_s_unet",
        dict(embed_dims=(24, 24), depths=(1, 1), num_heads=(2, 2), window_size=3, num_classes=5, cloud_size=16),
    ),
}
IMAGES = ("vit", "vitdet", "swin", "cswin", "crossformer", "rmt", "cpvt", "mit", "cvt")
CLOUDS = ("swin3d", "swin3d_unet")
SPECS = (
    *(
        "ape",
        "rope_mixed",
        "rope_axial",
        "decomposed+ape",
        "rpb",
        "lepe",
        "cpe",
        "irpe",
        "comrope+rope_axial",
        "abswin",
    ),
    *(
        "seqpe",
        "lape(ape)",
        "dropped(ape)",
        "cropped(sincos)",
        "randomised(rope_axial)",
        "manhattan",
        "cpb",
        "crse",
        "sincos",
        "fire",
    ),
)


def build(family: str, **options: Any) -> nn.Module:
    """A small model, with further options."""
    name, settings = TINY[family]
    torch.manual_seed(0)
    return timm.create_model(name, **{**settings, **options}).eval()


@cache
def _kept(family: str, spec: str | None) -> nn.Module:
    return build(family, **({} if spec is None else {"pos_encoding": spec}))


def model(family: str, spec: str | None = None) -> nn.Module:
    """A small model for one call, built once."""
    return copy.deepcopy(_kept(family, spec))


def cloud(count: int = 40, seed: int = 0, columns: int = 6, channels: int = 6) -> Voxels:
    """Voxels of two clouds."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randperm(8**3, generator=generator)[:count]
    cells = torch.stack((cells // 64, cells // 8 % 8, cells % 8), dim=1)
    coords = torch.cat(((torch.arange(count)[:, None] >= count // 2).long(), cells), dim=1)
    positions = cells + torch.rand(count, 3, generator=generator)
    colours = torch.rand(count, columns, generator=generator) * 2 - 1
    return Voxels(torch.randn(count, channels, generator=generator), coords, torch.cat((positions, colours), dim=1))
