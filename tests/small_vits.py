"""The registered ViTs at a size for tests."""

from __future__ import annotations

import timm
import torch
from conftest import VIT_NAMES, randomize

NAMES_TI = [name for name in VIT_NAMES if name.endswith("_ti")]
SMALL = dict(img_size=32, patch_size=8, depth=2, num_classes=5)


def build(name: str, **kwargs: object) -> torch.nn.Module:
    return randomize(timm.create_model(name, **{**SMALL, **kwargs}))


def image(*size: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, *size)
