"""Small ViTs in which what blocks do to the positions that they hand on shows."""

from __future__ import annotations

from typing import Any

import timm
import torch
from conftest import randomize
from torch import Tensor

OPTIONS: dict[str, Any] = dict(img_size=24, patch_size=4, embed_dim=32, depth=3, num_heads=2, num_classes=5)


def vit(spec: object = "tape", **kwargs: Any) -> Any:
    model = timm.create_model("none_vit_ti", pos_encoding=spec, **{**OPTIONS, "init_values": 1.0, **kwargs})
    model = randomize(model)
    for name, parameter in model.named_parameters():  # so that what blocks do to positions shows
        if ".by_" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return model


def pictures(*size: int) -> Tensor:
    return torch.randn(*(size or (2, 3, 24, 32)))


def gradients(model: Any, x: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    model(x).square().sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}  # each has one
