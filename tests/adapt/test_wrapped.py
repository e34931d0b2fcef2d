"""What other libraries put around projections: adapters of low rank, counters."""

from __future__ import annotations

from copy import deepcopy
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


COATNET: dict[str, Any] = {"embed_dim": (16, 16, 32, 64), "depths": (1, 1, 1, 2), "img_size": 64}


class LowRankPixels(nn.Module):
    """The same beside a convolution of one pixel."""

    def __init__(self, inside: nn.Conv2d) -> None:
        super().__init__()
        self.down = nn.Conv2d(inside.in_channels, 2, 1, bias=False)
        self.inside = inside
        self.up = nn.Conv2d(2, inside.out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.inside(x) + self.up(self.down(x))


@pytest.mark.parametrize(
    ("name", "options", "suffixes", "kinds"),
    [
        ("cait_xxs24_224", CASES["cait_xxs24_224"], ("proj_l", "proj_w"), {nn.Linear: LowRank}),
        ("coatnet_0_224", COATNET, ("qkv", "proj"), {nn.Conv2d: LowRankPixels, nn.Linear: LowRank}),
    ],
)
@torch.no_grad()
def test_what_is_read_by_its_weight_is_called_when_it_is_more(
    name: str, options: dict[str, Any], suffixes: tuple[str, ...], kinds: dict[type[nn.Module], type[nn.Module]]
) -> None:
    """Hooks on heads that mix and on convolutions of attention are heard, and what was put around them acts."""
    model, x = original(name, options), images((64, 64), batch=2)
    adapted = visionpe.adapt(deepcopy(model))
    before, found, heard = adapted(x), 0, []
    paths = [path for path, m in model.named_modules() if type(m) in kinds and path.split(".")[-1] in suffixes]
    for path in [path for path in paths if ".attn" in path]:
        found += 1
        parent, _, last = path.rpartition(".")
        torch.manual_seed(found)
        around: nn.Module = kinds[type(model.get_submodule(path))](model.get_submodule(path))  # type: ignore[call-arg]
        torch.manual_seed(found)
        own: nn.Module = kinds[type(adapted.get_submodule(path))](adapted.get_submodule(path))  # type: ignore[call-arg]
        setattr(model.get_submodule(parent), last, around)
        adapted.get_submodule(path).register_forward_hook(lambda *_: heard.append(1))
        adapted(x)
        assert heard.pop()
        setattr(adapted.get_submodule(parent), last, own)
    assert found
    after = adapted(x)
    assert (after - before).abs().max() > 1e-4
    expected = model(x)
    torch.testing.assert_close(after, expected, atol=1e-5 * max(1.0, expected.abs().max().item()), rtol=0)


@torch.no_grad()
def test_batch_norms_of_levit_are_called_when_they_are_more() -> None:
    """Every norm of tokens: hooks are heard, what took its place acts, and in training its statistics move."""
    sizes = {"embed_dim": (32, 48, 64), "key_dim": 8, "num_heads": (2, 3, 4), "depth": (2, 1, 1), "img_size": 112}
    model, x = original("levit_128s", sizes), images((112, 112), batch=2)
    adapted = visionpe.adapt(deepcopy(model))
    norms = [path for path, module in adapted.stages.named_modules() if isinstance(module, nn.BatchNorm1d)]
    assert len(norms) > 10
    for path in norms:
        heard: list[int] = []
        adapted.stages.get_submodule(path).register_forward_hook(lambda *_, heard=heard: heard.append(1))
        adapted(x)
        assert heard, path
    other = visionpe.adapt(deepcopy(model))
    other(x)
    for path in norms:
        parent, _, last = path.rpartition(".")
        setattr(
            other.stages.get_submodule(parent), last, nn.Sequential(other.stages.get_submodule(path), nn.Hardtanh())
        )
    assert (other(x) - model(x)).abs().max() > 1e-4
    trained = visionpe.adapt(deepcopy(model)).train()
    trained(x)
    assert all(trained.stages.get_submodule(path).num_batches_tracked == 1 for path in norms)
