"""Policies of convolutions and of buckets, and the resize of maps under them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from zoo_checks import make

from visionpe import Grid
from visionpe.attention.buckets import piecewise_index
from visionpe.policy.functions import convolve, resize_map

MAP = (6, 5)


def double(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_convolutions() -> None:
    weight, bias = double(3, 1, 3, 3), double(3)
    plain = F.conv2d(x := double(2, 3, 6, 5), weight, bias, padding=1, groups=3)
    for policy in ("extrapolate", "interpolate", "rescale(0.5)", "native"):
        assert torch.equal(convolve(x, weight, bias, MAP, policy), plain)
    x = double(2, 3, 12, 10)
    wide = F.conv2d(x, weight, bias, padding=2, dilation=2, groups=3)
    torch.testing.assert_close(convolve(x, weight, bias, MAP, "interpolate"), wide)
    torch.testing.assert_close(
        convolve(x, weight, bias, (3, 10), "rescale(0.5)"),
        F.conv2d(x, weight, bias, padding=(2, 1), dilation=(2, 1), groups=3),
    )
    small = F.conv2d(resize_map(x, MAP, "bilinear_antialias"), weight, bias, padding=1, groups=3)
    torch.testing.assert_close(convolve(x, weight, bias, MAP, "native"), resize_map(small, (12, 10), "bilinear"))
    # A piece of a map is resized as the map is.
    piece = x[..., :4, :6]
    small = convolve(piece, weight, bias, (2, 3), "native")
    torch.testing.assert_close(convolve(piece, weight, bias, MAP, "native", size=(12, 10)), small)
    # What is the same everywhere away from the border stays so, larger or smaller.
    for size in ((24, 20), (3, 5)):
        flat = convolve(torch.ones(1, 3, *size, dtype=torch.float64), weight, bias, MAP, "native")
        torch.testing.assert_close(flat[0, :, size[0] // 2, size[1] // 2], weight.sum((1, 2, 3)) + bias)


@pytest.mark.parametrize("policy", ["native", "interpolate", "rescale(0.5)"])
def test_lepe_in_windows(policy: str) -> None:
    """Each window is convolved on its own, with the ratio of the map."""
    encoding, grid = make("lepe"), Grid((8, 8), window=(4, 2))
    encoding["lepe"].set_policy(policy)
    conv = encoding["lepe"].convs[0]
    v = torch.randn(1, 2, 64, 8)
    out = encoding.mix(torch.zeros_like(v), v, grid)
    window = v.unflatten(2, (8, 8))[:, :, 4:, 2:4].permute(0, 1, 4, 2, 3).flatten(1, 2)
    wanted = convolve(window, conv.weight, conv.bias, (2, 1), policy)
    got = out.unflatten(2, (8, 8))[:, :, 4:, 2:4].permute(0, 1, 4, 2, 3).flatten(1, 2)
    torch.testing.assert_close(got, wanted)


def test_reach() -> None:
    offsets = torch.arange(-40.0, 41)
    plain, far = piecewise_index(offsets, 1.9), piecewise_index(offsets, 1.9, 2.0)
    near = offsets.abs() <= 1.9
    assert torch.equal(plain[near], far[near])
    assert (far.abs() <= plain.abs()).all()
    # The last bucket begins where log(d / 1.9) / log(16) times 1.9 passes 0.6: twice 1.9 rounds down from 2.5.
    first = [int(offsets[index == 3][0]) for index in (plain, far)]
    assert first == [5, 5] or first[1] > first[0]
    assert piecewise_index(torch.tensor([30.0]), 5.0).item() == 9
    assert piecewise_index(torch.tensor([60.0]), 5.0, 2.0).item() < 9 + 1
    shrunk = piecewise_index(offsets, 1.9, 0.01)
    assert (shrunk.abs() <= 3).all()
    for method in ("product", "cross", "euclidean", "quant"):
        encoding = make({"name": "irpe", "method": method})["irpe"]
        indices = {}
        for policy in ("extrapolate", "reach"):
            encoding.set_policy(policy)
            indices[policy] = encoding.index(Grid((24, 12)), 0, 288, torch.device("cpu"))
            same = encoding.index(Grid((4, 4)), 0, 16, torch.device("cpu"))
            indices[policy + "4"] = same
        pairs = list(zip(indices["extrapolate"], indices["reach"]))
        assert any(not torch.equal(a, b) for a, b in pairs), method
        assert all(torch.equal(a, b) for a, b in zip(indices["extrapolate4"], indices["reach4"]))


@pytest.mark.parametrize("policy", ["bicubic_antialias", "bilinear_antialias"])
@pytest.mark.parametrize("size", [(16, 1), (5, 1), (1, 1)])
def test_one_token_wide(policy: str, size: tuple[int, int]) -> None:
    """PyTorch's antialiasing on a CPU is wrong there."""
    for width in (1, 3):
        x = torch.randn(2, 3, 8, width)
        upright = resize_map(x.transpose(2, 3).contiguous(), (3, size[0]), policy).transpose(2, 3)
        lying = resize_map(x, (*size[:1], 3), policy)
        torch.testing.assert_close(upright, lying)
        got = resize_map(x, size, policy)
        if width == 1:
            torch.testing.assert_close(got, lying[..., :1])
        torch.testing.assert_close(resize_map(x.mT.contiguous(), size[::-1], policy).mT, got)
        assert got.std() < x.std()


def test_volumes_and_voxels() -> None:
    """Three axes, each by its own ratio; sparse voxels have no map to resize."""
    weight, x = double(2, 1, 3, 3, 3), double(1, 2, 4, 6, 5)
    wanted = F.conv3d(x, weight, padding=(2, 1, 1), dilation=(2, 1, 1), groups=2)
    torch.testing.assert_close(convolve(x, weight, None, (2, 6, 5), "interpolate"), wanted)
    small = convolve(resize_map(x, (2, 6, 5), "bilinear_antialias"), weight, None, (2, 6, 5))
    torch.testing.assert_close(convolve(x, weight, None, (2, 6, 5), "native"), resize_map(small, (4, 6, 5), "bilinear"))
    encoding = make("cpe", grid_size=(4, 4, 4))
    grid = Grid((4, 4, 4), coords=torch.tensor([[0, 0, 0], [0, 0, 1]]), cloud=torch.zeros(2, dtype=torch.long))
    tokens = torch.randn(1, 2, 16)
    assert encoding.refine(tokens, grid).shape == tokens.shape
    encoding["cpe"].set_policy("native")
    with pytest.raises(ValueError, match="policy='native' of cpe needs the full map of tokens"):
        encoding.refine(tokens, grid)
    with pytest.raises(ValueError, match="policy='bicubic' is unknown; allowed: extrapolate, interpolate"):
        convolve(x, weight, None, (2, 6, 5), "bicubic")
