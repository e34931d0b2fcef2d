"""Small Point Transformers V3, and clouds for them."""

from __future__ import annotations

from typing import Any

import timm
import torch
from conftest import randomize
from tiny_voxels import cloud

from visionpe.sparse import Voxels

TINY: dict[str, Any] = {
    "embed_dims": (24, 24, 48),
    "depths": (2, 1, 1),
    "num_heads": (2, 2, 4),
    "patch_size": 16,
    "strides": (2, 2),
    "decoder_dims": (24, 24),
    "decoder_depths": (2, 1),
    "decoder_heads": (2, 2),
    "num_classes": 5,
}


def tiny(name: str = "ptv3_b_unet", **options: Any) -> Any:
    settings = {**TINY, **options}
    if "unet" not in name:
        settings = {key: value for key, value in settings.items() if not key.startswith("decoder")}
    model = randomize(timm.create_model(name, **settings))
    for each in model.modules():
        if isinstance(each, torch.nn.Linear):
            torch.nn.init.normal_(each.weight, std=1.5 * each.in_features**-0.5)
    return model.double().eval()


def grid_sampled(count: int = 150, seed: int = 0, clouds: int = 1) -> Voxels:
    """Clouds whose coordinates begin at 0."""
    batch = Voxels.collate([cloud(count - 30 * i, seed + i) for i in range(clouds)])
    up = torch.tensor([0, 0, 0, 6])
    signals = batch.signals.double()
    signals[:, :3] += up[1:]
    return Voxels(batch.features.double(), batch.coords + up, signals)
