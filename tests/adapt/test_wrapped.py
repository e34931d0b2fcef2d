"""What other libraries put around projections: adapters of low rank, counters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from adapted_models import images, original
from torch import Tensor, nn

import visionpe
from visionpe.backbones.adapt.wrapped import weight_of

STAGES: dict[str, Any] = {"num_heads": (1, 2, 3, 6), "depths": (1, 1, 1, 1)}
PYRAMID: dict[str, Any] = {**STAGES, "embed_dim": 24, "img_size": 64, "window_size": 4}
VIT: dict[str, Any] = {"embed_dim": 96, "num_heads": 3, "depth": 2, "img_size": 64}
MAXVIT: dict[str, Any] = {"embed_dim": (32, 32, 64, 64), "depths": (1, 1, 1, 1), "img_size": 64}
CASES: dict[str, dict[str, Any]] = {
    "cait_xxs24_224": {**VIT, "num_heads": 2},
    "hiera_tiny_224": {"embed_dim": 16, "num_heads": 2, "stages": (1, 1, 1, 1), "img_size": 64},
    "maxvit_rmlp_pico_rw_256": MAXVIT,
    "samvit_base_patch16": {**VIT, "window_size": 3, "global_attn_indexes": (1,)},
    "swin_tiny_patch4_window7_224": PYRAMID,
    "swinv2_cr_tiny_ns_224": PYRAMID,
    "twins_svt_small": {**STAGES, "embed_dims": (24, 24, 48, 48)},
    "vit_small_patch16_dinov3": VIT,
}


class LowRank(nn.Module):
    """A projection and what is learned beside it; nothing else is known of it."""

    def __init__(self, inside: nn.Linear) -> None:
        super().__init__()
        self.down = nn.Linear(inside.in_features, 2, bias=False)
        self.inside = inside
        self.up = nn.Linear(2, inside.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.inside(x) + self.up(self.down(x))


def wrap(model: nn.Module) -> None:
    for path, module in list(model.named_modules()):
        for name in ("qkv", "q_proj", "proj"):
            layer = getattr(module, name, None)
            if path.endswith("attn") and isinstance(layer, nn.Linear):
                setattr(module, name, LowRank(layer))


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_projections_wrapped_before(name: str) -> None:
    """timm runs such a model, and so it can be adapted."""
    model, size = original(name, CASES[name]), (CASES[name].get("img_size", 224),) * 2
    wrap(model)
    adapted, x = visionpe.adapt(model), images(size, batch=1)
    expected = model(x)
    assert [m for m in adapted.modules() if isinstance(m, LowRank)]
    torch.testing.assert_close(adapted(x), expected, atol=1e-5 * max(1.0, expected.abs().max().item()), rtol=0)


def test_weight_of_the_layer_inside() -> None:
    layer = nn.Linear(8, 24)
    assert weight_of(layer) is weight_of(LowRank(layer)) is layer.weight


@torch.no_grad()
def test_swinv2_calls_its_projections() -> None:
    adapted = visionpe.adapt(original("swinv2_tiny_window8_256", PYRAMID))
    x = images((64, 64), batch=1)
    before = adapted(x)
    wrap(adapted)
    assert (adapted(x) - before).abs().max() > 1e-4
