"""Small models whose parameters are far from zero, so that policies show."""

from __future__ import annotations

import timm
import torch

import visionpe  # noqa: F401 (registers the names)


def tiny(name: str, **kwargs: object) -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {"img_size": (16, 24), "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 3}
    spec = "rope_mixed+ape" if name == "rope_ape" else {"rope": "rope_mixed"}.get(name, name)
    model = timm.create_model("none_vit_ti", **{"pos_encoding": spec, **sizes, **kwargs}).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return model
