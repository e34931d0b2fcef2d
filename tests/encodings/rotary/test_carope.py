"""CARoPE by its formula, token by token, and the tokens that it is told where queries turn."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest
import timm
import torch
from conftest import randomize, tiny_vit
from torch import Tensor
from zoo_checks import check_compile, check_export, check_gradients, check_sizes, make

import visionpe
from visionpe import Grid, create_encoding
from visionpe.encodings.rotary.pairs import rotate_pairs


def wanted_angles(x: Tensor, weight: Tensor, bias: Tensor, size: tuple[int, ...], head_dim: int) -> Tensor:
    """One image's ``(heads, N, head_dim / 2)``: a sum over the tokens before it in its line, written as a loop."""
    axes, heads = len(size), weight.shape[0] // len(size)
    bands = head_dim // (2 * axes)
    places = Grid(size).positions().long().tolist()
    angles = torch.zeros(heads, len(places), head_dim // 2, dtype=x.dtype)
    for i, here in enumerate(places):
        for share, axis in enumerate(reversed(range(axes))):  # the column has the first pairs
            for t, there in enumerate(places):
                beside = all(a == b for other, (a, b) in enumerate(zip(here, there)) if other != axis)
                if not beside or there[axis] > here[axis]:
                    continue
                for head in range(heads):
                    row = axis * heads + head
                    f = 1 / (torch.log1p((x[t] @ weight[row] + bias[row]).exp()) + 1)
                    for pair in range(bands):
                        angles[head, i, share * bands + pair] += f ** (pair + 1)
    return angles


@pytest.mark.parametrize("size", [(9,), (3, 4), (2, 3, 2)])
@pytest.mark.parametrize("layout", ["adjacent", "half"])
@torch.no_grad()
def test_formula(size: tuple[int, ...], layout: Any) -> None:
    """On one axis the paper's."""
    encoding = make({"name": "carope", "layout": layout}, grid_size=size).double()
    part: Any = encoding["carope"]
    x, (q, k) = torch.randn(2, prod(size) + 1, 16).double(), torch.randn(2, 2, 2, prod(size) + 1, 8).double()
    turned = encoding.rotate(q, k, Grid(size, 1), layer=1, tokens=x)
    linear = part.frequency[1]
    angles = torch.stack([wanted_angles(each[1:], linear.weight, linear.bias, size, 8) for each in x])
    rotation = torch.stack((angles.cos(), angles.sin()), dim=-1 if layout == "adjacent" else -2)
    for got, before in zip(turned, (q, k)):
        assert torch.equal(got[:, :, :1], before[:, :, :1])
        torch.testing.assert_close(got[:, :, 1:], rotate_pairs(before[:, :, 1:], rotation, layout))


def test_no_token_changes_anything_at_first() -> None:
    """Training starts from RoPE, whose slowest pair has the frequency 1 / theta."""
    part: Any = create_encoding({"name": "carope", "theta": 50.0}, dim=32, num_heads=2, grid_size=(4, 5))
    angles = part.angles(torch.randn(2, 20, 32), Grid((4, 5)), layer=0).unflatten(2, (4, 5))
    ladder = 50 ** (-torch.arange(1, 5) / 4)
    columns, rows = torch.arange(1, 6)[:, None] * ladder, torch.arange(1, 5)[:, None] * ladder
    torch.testing.assert_close(angles[..., :4], columns.expand_as(angles[..., :4]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(angles[..., 4:], rows[:, None].expand_as(angles[..., 4:]), atol=1e-5, rtol=1e-5)
    huge: Any = create_encoding({"name": "carope", "theta": 1e12}, dim=8, num_heads=2, grid_size=(4, 5))
    assert huge.frequency[0].bias.isfinite().all()


def test_interpolated_sums() -> None:
    part: Any = make("carope", grid_size=(4, 4))["carope"]
    x, grid = torch.randn(1, 32, 16), Grid((4, 8))
    plain = part.angles(x, grid, layer=0)
    part.set_policy("interpolate")
    halved = part.angles(x, grid, layer=0)
    torch.testing.assert_close(halved[..., :2], plain[..., :2] / 2)
    torch.testing.assert_close(halved[..., 2:], plain[..., 2:])


def test_what_lies_between_two_tokens_says_how_far_they_are_apart() -> None:
    """Of one row, whatever stands ahead of both."""
    encoding, (q, k) = make("carope"), torch.randn(2, 1, 2, 8, 8)
    x, y = torch.randn(2, 1, 8, 16)
    y[:, 3:] = x[:, 3:]
    one, other = (torch.matmul(a, b.mT) for a, b in (encoding.rotate(q, k, Grid((1, 8)), tokens=t) for t in (x, y)))
    # columns alone: rows would move with the tokens of the column, here each its own
    torch.testing.assert_close(one[..., 3:, 3:], other[..., 3:, 3:], atol=1e-5, rtol=1e-5)
    assert (one - other)[..., :3, 3:].abs().max() > 0.01


def test_refusals() -> None:
    encoding, q, grid = make("carope"), torch.randn(1, 2, 20, 8), Grid((4, 5))
    with pytest.raises(ValueError, match="'carope' reads the tokens that attention is given"):
        encoding.rotate(q, q, grid)
    listed = Grid((4, 5), coords=grid.positions())
    with pytest.raises(ValueError, match="carope needs the full map of tokens"):
        encoding.rotate(q, q, listed, tokens=torch.randn(1, 20, 16))
    with pytest.raises(ValueError, match="head dimension 3; carope turns channel pairs on 2 axes"):
        create_encoding("carope", dim=6, num_heads=2, grid_size=(4, 5))
    with pytest.raises(ValueError, match="'carope' reads tokens of 16 channels, and this attention is given 12"):
        encoding.rotate(q, q, grid, tokens=torch.randn(1, 20, 12))
    with pytest.raises(ValueError, match="needs the full map of tokens, patch_drop_rate"):
        tiny_vit("carope", patch_drop_rate=0.5)


@pytest.mark.parametrize("spec", ["harope(carope)", "dropped(carope)", "string(carope)", "randomised(pape)"])
def test_under_others(spec: str) -> None:
    """What stands over it hands its tokens on."""
    model = tiny_vit(spec).train()
    model(torch.randn(2, 3, 24, 24)).square().sum().backward()
    assert all(p.grad is not None for p in model.pos_encoding.parameters())


@pytest.mark.parametrize("name", ["carope_vit_ti", "carope_vitdet_b", "carope_swin_t", "carope_cswin_t"])
@torch.no_grad()
def test_models_tell_their_tokens(name: str) -> None:
    """Angles are of the tokens that are projected: other weights of the projection give the same."""
    options: dict[str, Any] = {"embed_dim": 32, "num_heads": 2, "depth": 2, "img_size": 64}
    if "swin" in name:
        options = {"embed_dim": 16, "num_heads": (2, 2), "depths": (2, 2), "window_size": 4, "img_size": 64}
    if "cswin" in name:
        options = {"embed_dim": 16, "num_heads": (2, 2, 2, 2), "depths": (1, 1, 1, 1), "img_size": 64}
    model = randomize(timm.create_model(name, num_classes=0, **options))
    told: list[Tensor] = []
    for part in model.modules():
        if isinstance(part, visionpe.PositionEncoding):
            part.register_forward_pre_hook(lambda _, args, kwargs: told.append(kwargs["tokens"]), with_kwargs=True)
    x = torch.randn(1, 3, 64, 96)
    model(x)
    first = told[0]
    told.clear()
    projections = [p for key, p in model.named_parameters() if key.endswith("qkv.weight")]
    projections[0].normal_()
    model(x)
    assert torch.equal(told[0], first)


@torch.no_grad()
def test_adapted_model() -> None:
    model = timm.create_model(
        "vit_small_patch16_dinov3", embed_dim=32, num_heads=2, depth=2, img_size=64, num_classes=0
    ).eval()
    model = randomize(visionpe.adapt(model, pos_encoding="carope"))
    assert model(torch.randn(1, 3, 64, 96)).isfinite().all()


def test_in_a_model() -> None:
    check_gradients("carope")
    check_gradients({"name": "carope", "theta": None})
    check_sizes("carope")
    check_export("carope")
    check_compile("carope")
