"""Small clouds of voxels, and small Swin3Ds whose outputs show everything."""

from __future__ import annotations

from typing import Any

import timm
import torch
from conftest import randomize
from torch import Tensor

from visionpe.sparse import Voxels

TINY: dict[str, Any] = {
    "embed_dims": (24, 24, 48),
    "depths": (2, 2, 1),
    "num_heads": (2, 2, 2),
    "window_size": (4, 5, 5),
    "first_down_stride": 2,
}


def cloud(count: int = 150, seed: int = 0, extent: int = 14, columns: int = 3, cloud_index: int = 0) -> Voxels:
    """Voxels on a wavy sheet, in mixed order."""
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randperm(extent**2, generator=generator)[:count]
    x, y = flat // extent, flat % extent
    z = (3 * torch.sin(x / 3.0) + 3 * torch.cos(y / 4.0)).floor().long()
    cells = torch.stack((x, y, z), dim=1)
    positions = cells + torch.rand(count, 3, generator=generator) * 0.98 + 0.01
    colours = torch.rand(count, columns, generator=generator) * 2 - 1
    features = torch.randn(count, 6, generator=generator)
    coords = torch.cat((torch.full((count, 1), cloud_index), cells), dim=1)
    return Voxels(features, coords, torch.cat((positions, colours), dim=1))


def tiny(spec: Any = "crse", model: str = "swin3d_s_unet", **options: Any) -> Any:
    settings = {**TINY, "num_classes": 5, **options}
    built = randomize(timm.create_model(model, pos_encoding=spec, **settings))
    for each in built.modules():
        if isinstance(each, torch.nn.Linear):  # as drawn they are so small that positions would hardly show
            torch.nn.init.normal_(each.weight, std=1.5 * each.in_features**-0.5)
    return built.double().eval()


def without_pairs(voxels: Voxels) -> Voxels:
    """Without the cells of two: which of those stands for its cell depends on the order of the rows, by rule."""
    while True:
        drop = torch.zeros(len(voxels), dtype=torch.bool)
        coords = voxels.coords
        for stride in (2, 4):  # of the levels of a tiny model
            finer = coords.div(torch.tensor([1] + 3 * [stride // 2]), rounding_mode="floor").unique(dim=0)
            cells = finer.div(torch.tensor([1, 2, 2, 2]), rounding_mode="floor")
            pairs, counts = cells.unique(dim=0, return_counts=True)
            own = coords.div(torch.tensor([1] + 3 * [stride]), rounding_mode="floor")
            drop |= (own[:, None] == pairs[counts == 2]).all(-1).any(1)
        if not drop.any():
            return voxels
        voxels = Voxels(voxels.features[~drop], coords[~drop], voxels.signals[~drop])


def double(voxels: Voxels) -> Voxels:
    return Voxels(voxels.features.double(), voxels.coords, voxels.signals.double(), voxels.stride)


def moved(voxels: Voxels, by: Tensor) -> Voxels:
    coords, signals = voxels.coords.clone(), voxels.signals.clone()
    coords[:, 1:] += by
    signals[:, :3] += by
    return Voxels(voxels.features, coords, signals)
