"""PaPE against its published code, and the tokens that attention tells it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import randomize, tiny_vit
from safetensors.torch import load_file

import visionpe
from visionpe import Composition, Grid, attend, create_encoding

REFERENCE = Path(__file__).parents[1] / "reference"
GRID = Grid((4, 5), 1)


def published(form: str) -> tuple[Any, dict[str, torch.Tensor]]:
    """Its code with three parabolas, class token at the origin, patches from 1."""
    data = {k.partition(".")[2]: v for k, v in load_file(REFERENCE / "pape.safetensors").items() if k.startswith(form)}
    spec = {"name": "pape", "parabolas": 3, "form": form, "prefix_position": -1}
    encoding = create_encoding(spec, dim=16, num_heads=2, depth=2, grid_size=(4, 5)).eval()
    with torch.no_grad():
        if form == "parabolic":
            encoding.position[1] = data["position.weight"].view(2, 3, 2)
            encoding.shape[1].weight.copy_(data["ab.weight"])
        else:
            encoding.scales[1] = data["position_scales"].flatten()
            encoding.shape[1].weight.copy_(data["a.weight"])
    return encoding, data


@pytest.mark.parametrize("form", ["parabolic", "isotropic"])
@torch.no_grad()
def test_logits_of_the_published_code(form: str) -> None:
    encoding, data = published(form)
    q, k = data["q"], data["k"]
    bias = encoding.bias(q, k, GRID, layer=1, tokens=data["x"])
    got = q @ k.mT * 8**-0.5 + bias.matrix(torch.float32)
    torch.testing.assert_close(got, data["logits"], atol=1e-5, rtol=1e-5)
    wanted = data["logits"].softmax(-1) @ k
    for kernel in ("auto", "low_rank", "chunked", "math"):
        torch.testing.assert_close(attend(q, k, k, biases=[bias], kernel=kernel), wanted, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_prefix_tokens_without_a_place() -> None:
    encoding, data = published("parabolic")
    encoding.prefix_position = None
    matrix = encoding.bias(data["q"], data["k"], GRID, layer=1, tokens=data["x"]).matrix(torch.float32)
    assert not matrix[..., 0, :].any()
    assert not matrix[..., 0].any()
    q, k = data["q"][:, :, 1:], data["k"][:, :, 1:]
    alone = encoding.bias(q, k, Grid((4, 5)), layer=1, tokens=data["x"][:, 1:]).matrix(torch.float32)
    torch.testing.assert_close(matrix[..., 1:, 1:], alone)


@pytest.mark.parametrize("name", ["pape_vit_ti", "pape_vitdet_b", "pape_swin_t", "pape_cswin_t"])
def test_models_tell_their_tokens(name: str) -> None:
    """The same logits from other tokens are other ones: what is read are the tokens, not queries."""
    options: dict[str, Any] = {"embed_dim": 32, "num_heads": 2, "depth": 2, "img_size": 64}
    if "swin" in name:
        options = {"embed_dim": 16, "num_heads": (2, 2), "depths": (2, 2), "window_size": 4, "img_size": 64}
    if "cswin" in name:
        options = {"embed_dim": 16, "num_heads": (2, 2, 2, 2), "depths": (1, 1, 1, 1), "img_size": 64}
    model = randomize(timm.create_model(name, num_classes=0, **options))
    seen = []
    for part in visionpe_parts(model):
        part.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs["tokens"]), with_kwargs=True)
    with torch.no_grad():
        model(torch.randn(1, 3, 64, 96))
    assert len(seen) >= 2
    assert all(tokens.ndim == 3 for tokens in seen)


def visionpe_parts(model: torch.nn.Module) -> list[torch.nn.Module]:
    return [m for m in model.modules() if isinstance(m, visionpe.PositionEncoding)]


def test_where_nobody_tells_tokens_it_says_so() -> None:
    q = torch.randn(1, 2, 20, 8)
    part = create_encoding("pape", dim=16, num_heads=2, grid_size=(4, 5))
    with pytest.raises(ValueError, match="reads the tokens that attention is given"):
        Composition([part]).bias(q, q, Grid((4, 5)))


def test_beside_others_and_under_wrappers() -> None:
    x = torch.randn(2, 3, 24, 24)
    for spec in ("pape+ape", "randomised(pape)", "pape(form=isotropic)+rope_axial"):
        model = tiny_vit(spec).train()
        model(x).square().sum().backward()
        assert all(p.grad is not None for p in model.pos_encoding.parameters()), spec


ADAPTED: dict[str, dict[str, Any]] = {
    "vit_small_patch16_224": {"embed_dim": 32, "num_heads": 2, "depth": 2, "img_size": 64},
    "vit_small_patch16_dinov3": {"embed_dim": 32, "num_heads": 2, "depth": 2, "img_size": 64},
    "vit_relpos_small_patch16_224": {"embed_dim": 32, "num_heads": 2, "depth": 2, "img_size": 64},
    "beit_base_patch16_224": {"embed_dim": 32, "num_heads": 2, "depth": 2, "img_size": 64},
    "cait_xxs24_224": {"embed_dim": 32, "num_heads": 2, "depth": 2, "img_size": 64},
    "swin_tiny_patch4_window7_224": {
        "embed_dim": 16,
        "num_heads": (1, 1, 2, 2),
        "depths": (1, 1, 1, 1),
        "img_size": 64,
        "window_size": 4,
    },
    "levit_128s": {"embed_dim": (32, 48, 64), "key_dim": 8, "num_heads": (2, 3, 4), "depth": (2, 1, 1), "img_size": 64},
}


@pytest.mark.parametrize("name", ADAPTED)
@torch.no_grad()
def test_adapted_models_tell_what_attention_projects(name: str) -> None:
    """The tokens that the projection of queries is given, to the number."""
    model = timm.create_model(name, num_classes=0, **ADAPTED[name]).eval()
    if name == "levit_128s":  # where some queries are pooled
        with pytest.raises(ValueError, match="needs queries and keys to be the same tokens"):
            visionpe.adapt(model, pos_encoding="pape")
        return
    model = visionpe.adapt(model, pos_encoding="pape")
    told, projected = [], []
    for path, module in model.named_modules():
        if path.endswith((".qkv", ".q_proj")):
            module.register_forward_pre_hook(lambda _, args: projected.append(args[0]))
        if isinstance(module, visionpe.PositionEncoding) and module.reads_tokens:
            module.register_forward_pre_hook(lambda _, args, kwargs: told.append(kwargs["tokens"]), with_kwargs=True)
    model(torch.randn(1, 3, 64, 64))
    assert len(told) == len(projected) > 0
    assert all(torch.equal(one.reshape(other.shape), other) for one, other in zip(told, projected))
