"""Each encoding against its published formula, computed in another way."""

from __future__ import annotations

from math import cos, prod, sin, sqrt
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from timm.layers import build_sincos2d_pos_embed, resample_abs_pos_embed

from visionpe import Grid, create_encoding
from visionpe.encodings.bias.alibi import alibi_slopes
from visionpe.policy.functions import rescale_positions, resize_map, resize_table, stretch

REFERENCE = Path(__file__).parents[1] / "reference"


def make(name: str, **options: object) -> torch.nn.Module:
    context = dict(dim=32, num_heads=2, depth=3, grid_size=(6, 6))
    return create_encoding({"name": name, **options}, **context)


@pytest.mark.parametrize(("heads", "side"), [(4, 5), (6, 4), (12, 3), (16, 6)])
def test_alibi_against_croma(heads: int, side: int) -> None:
    wanted = load_file(REFERENCE / "croma_alibi.safetensors")[f"output.bias.alibi_h{heads}_g{side}"]
    encoding = create_encoding("alibi", dim=heads * 4, num_heads=heads, grid_size=(3, 3))
    q = torch.zeros(1, heads, side * side, 4)
    torch.testing.assert_close(encoding.bias(q, q, Grid((side, side))).matrix(q.dtype), wanted, atol=1e-5, rtol=1e-6)


def test_alibi_slopes() -> None:
    assert alibi_slopes(2) == [1 / 16, 1 / 256]
    assert alibi_slopes(3) == [1 / 16, 1 / 256, 1 / 4]
    assert alibi_slopes(8) == [2**-i for i in range(1, 9)]


def test_alibi_on_a_lying_grid() -> None:
    encoding = make("alibi")
    q = torch.zeros(1, 2, 15, 16)
    matrix = encoding.bias(q, q, Grid((3, 5))).matrix(q.dtype)[0]
    for i in range(15):
        for j in range(15):
            distance = sqrt((i // 5 - j // 5) ** 2 + (i % 5 - j % 5) ** 2)
            assert matrix[:, i, j].tolist() == pytest.approx([-distance / 16, -distance / 256])


def test_alibi_interpolates_each_axis_by_its_own_ratio() -> None:
    encoding = make("alibi", policy="interpolate")
    q = torch.zeros(1, 2, 36, 16)
    matrix = encoding.bias(q, q, Grid((3, 12))).matrix(q.dtype)[0, 0]
    assert matrix[0, 1].item() == pytest.approx(-0.5 / 16)  # a column is half a trained token
    assert matrix[0, 12].item() == pytest.approx(-2 / 16)  # a row is two


@pytest.mark.parametrize("size", [(6, 6), (4, 7)])
def test_rope_axial_by_hand(size: tuple[int, int]) -> None:
    encoding, x = make("rope_axial"), torch.randn(1, 2, size[0] * size[1], 16)
    rotated, _ = encoding.rotate(x, x, Grid(size))
    for token in (0, 5, 11, 23):
        column, row = token % size[1], token // size[1]
        for pair in range(8):
            angle = (column if pair < 4 else row) * 100 ** (-4 * (pair % 4) / 16)
            a, b = x[0, 1, token, 2 * pair : 2 * pair + 2].tolist()
            wanted = [a * cos(angle) - b * sin(angle), a * sin(angle) + b * cos(angle)]
            assert rotated[0, 1, token, 2 * pair : 2 * pair + 2].tolist() == pytest.approx(wanted, abs=1e-5)


def test_rope_mixed_by_hand() -> None:
    encoding, x = make("rope_mixed"), torch.randn(1, 2, 28, 16)
    for layer in range(3):
        rotated, _ = encoding.rotate(x, x, Grid((4, 7)), layer=layer)
        for token, head, pair in ((27, 0, 7), (9, 1, 2)):
            fx, fy = encoding.freqs[:, layer, head, pair].tolist()
            angle = (token % 7) * fx + (token // 7) * fy
            a, b = x[0, head, token, 2 * pair : 2 * pair + 2].tolist()
            wanted = [a * cos(angle) - b * sin(angle), a * sin(angle) + b * cos(angle)]
            assert rotated[0, head, token, 2 * pair : 2 * pair + 2].tolist() == pytest.approx(wanted, abs=1e-5)


def test_rope_mixed_starts_with_the_axial_frequencies() -> None:
    freqs = make("rope_mixed", theta=10.0).freqs  # (2, depth, heads, 8)
    magnitudes = 10.0 ** (-torch.arange(4) / 4)
    torch.testing.assert_close(freqs.norm(dim=0), magnitudes.repeat(2).expand(3, 2, 8))
    first, second = freqs[..., :4], freqs[..., 4:]  # at right angles
    torch.testing.assert_close((first * second).sum(0), torch.zeros(3, 2, 4), atol=1e-6, rtol=0)
    assert freqs[0, :, :, 0].unique().numel() == 6  # each layer and head looks its own way


@pytest.mark.parametrize("name", ["ape", "sincos", "fourier"])
@pytest.mark.parametrize("size", [(2, 3, 4), (3, 2, 5)])
def test_absolute_on_three_axes(name: str, size: tuple[int, ...]) -> None:
    """Video and volumes: every place has a vector, listed or not, and a size of its own is no other size."""
    encoding, n = create_encoding(name, dim=96, num_heads=2, grid_size=(2, 3, 4)), prod(size)
    x, grid = torch.randn(1, n, 96), Grid(size)
    table = encoding.add(x, grid) - x
    assert table.unique(dim=1).shape[1] == n
    listed = encoding.add(x, Grid(size, coords=grid.positions())) - x
    torch.testing.assert_close(listed, table, atol=1e-5, rtol=1e-5)
    middle = Grid(size, coords=torch.tensor([[0.5, 1.0, 2.0]]))
    if name == "ape":
        ends = encoding.resized(size)[:2, 1, 2].mean(0)
        torch.testing.assert_close(encoding.add(x[:, :1], middle)[0, 0] - x[0, 0], ends, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("policy", ["bicubic_antialias", "bicubic", "bilinear", "nearest"])
def test_volumes_are_resized_like_maps(policy: str) -> None:
    """Two axes that stay, or two that change: both ways to the same table."""
    table = torch.randn(4, 5, 6, 8)
    frames = torch.stack([resize_table(frame, (3, 9), policy) for frame in table])
    torch.testing.assert_close(resize_table(table, (4, 3, 9), policy), frames, atol=1e-6, rtol=1e-6)
    turned = resize_table(table.transpose(0, 2), (9, 3, 4), policy).transpose(0, 2)
    torch.testing.assert_close(turned, frames, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["rope_axial", "rope_mixed", "comrope"])
def test_three_axes(name: str) -> None:
    """Video and volumes: relative in all three axes."""
    encoding = create_encoding(name, dim=96, num_heads=2, grid_size=(2, 3, 4))
    x, grid = torch.randn(1, 24, 96), Grid((2, 3, 4))
    q = x.unflatten(-1, (2, 48)).transpose(1, 2)
    a, b = encoding.rotate(q, q, grid)
    listed = Grid((2, 3, 4), coords=grid.positions() + torch.tensor([3.0, -5.0, 2.0]))
    c, d = encoding.rotate(q, q, listed)
    torch.testing.assert_close(a @ b.transpose(-2, -1), c @ d.transpose(-2, -1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(6, 6), (4, 7)])
def test_sincos_against_timm(size: tuple[int, int]) -> None:
    encoding = make("sincos", policy="extrapolate")
    x = torch.zeros(1, size[0] * size[1], 32)
    ours = encoding.add(x, Grid(size))[0]
    theirs = build_sincos2d_pos_embed(list(size), dim=32, temperature=1e4, reverse_coord=True, interleave_sin_cos=True)
    theirs = theirs.view(size[1], size[0], 32).transpose(0, 1).flatten(0, 1)  # timm's tokens go column by column
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    token = 9
    assert ours[token, 1].item() == pytest.approx(sin((token % size[1]) * 10000 ** (-1 / 8)), abs=1e-6)
    assert ours[token, 16].item() == pytest.approx(sin(token // size[1]), abs=1e-6)


@pytest.mark.parametrize("size", [(3, 5), (6, 6), (9, 14)])
def test_table_resize_against_timm(size: tuple[int, int]) -> None:
    table = torch.randn(6, 6, 8)
    for policy, mode, antialias in (("bicubic_antialias", "bicubic", True), ("bilinear", "bilinear", False)):
        wanted = resample_abs_pos_embed(table.view(1, 36, 8), list(size), [6, 6], 0, mode, antialias)
        torch.testing.assert_close(resize_table(table, size, policy).flatten(0, 1), wanted[0])


def test_table_resize_in_bfloat16_is_computed_in_float32() -> None:
    table = torch.randn(6, 6, 8)
    exact = resize_table(table.bfloat16().float(), (15, 9), "bicubic").bfloat16()
    assert torch.equal(resize_table(table.bfloat16(), (15, 9), "bicubic"), exact)


def test_nearest_repeats() -> None:
    x = torch.arange(4.0).view(1, 1, 2, 2)
    assert resize_map(x, (4, 4), "nearest")[0, 0, :, 0].tolist() == [0, 0, 2, 2]


def test_position_policies() -> None:
    p = torch.arange(12.0)
    assert torch.equal(rescale_positions(p, 12, 6, "extrapolate"), p)
    assert torch.equal(rescale_positions(p, 12, 6, "interpolate"), p / 2)
    assert torch.equal(rescale_positions(p, 12, 12, "interpolate"), p)
    assert torch.equal(rescale_positions(p[:3], 3, 6, "interpolate"), p[:3] * 2)
    with pytest.raises(ValueError, match="policy='ntk' is unknown; allowed: extrapolate, interpolate"):
        rescale_positions(p, 12, 6, "ntk")
    with pytest.raises(ValueError, match="policy='cubic' is unknown; allowed: bicubic_antialias"):
        resize_table(torch.zeros(2, 2, 1), (3, 3), "cubic")


def test_cpe_is_a_convolution_plus_the_identity() -> None:
    encoding = make("cpe", layers=(0, 2))
    x = torch.randn(1, 1 + 20, 32)
    moved = encoding.refine(x, Grid((4, 5), 1), layer=2)
    tokens = x[:, 1:].transpose(1, 2).view(1, 32, 4, 5)
    wanted = (tokens + encoding.convs[1](tokens)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(moved[:, 1:], wanted)
    assert torch.equal(encoding.refine(x, Grid((4, 5), 1), layer=1), x)


def test_cpe_ahead_of_the_blocks() -> None:
    """Ahead of the first it joins the tokens; ahead of the others it follows the block before, and none the last."""
    ahead, after = make("cpe", layers="all", ahead=True), make("cpe", layers="all")
    ahead.load_state_dict(after.state_dict())
    x, grid = torch.randn(1, 1 + 20, 32), Grid((4, 5), 1)
    assert ahead.layers == after.layers == (0, 1, 2)
    torch.testing.assert_close(ahead.add(x[:, 1:], grid), after.refine(x, grid, layer=0)[:, 1:])
    torch.testing.assert_close(ahead.refine(x, grid, layer=1), after.refine(x, grid, layer=2))
    assert torch.equal(ahead.refine(x, grid, layer=2), x)
    assert torch.equal(after.add(x[:, 1:], grid), x[:, 1:])
    assert torch.equal(make("cpe", layers=(1,), ahead=True).add(x[:, 1:], grid), x[:, 1:])
    with pytest.raises(ValueError, match=r"ahead=True with grid_size=.*: allowed on two axes"):
        create_encoding({"name": "cpe", "ahead": True}, dim=8, num_heads=1, grid_size=(2, 2, 2))


def test_cpe_interpolated_is_a_dilation_at_whole_ratios() -> None:
    encoding = create_encoding("cpe", dim=4, num_heads=1, grid_size=(6, 4), policy="interpolate")
    x = torch.randn(1, 4, 12, 12)
    moved = encoding.refine(x.flatten(2).transpose(1, 2), Grid((12, 12))).transpose(1, 2).unflatten(2, (12, 12))
    conv = encoding.convs[0]
    wanted = F.conv2d(x, conv.weight, conv.bias, padding=(2, 3), dilation=(2, 3), groups=4)
    torch.testing.assert_close(moved - x, wanted, atol=1e-5, rtol=1e-5)


def test_stretched_taps() -> None:
    assert torch.equal(stretch(5, 7, 7, torch.zeros(1)), torch.eye(5))
    wanted = [[0.5, 0, 0], [0.5, 0, 0], [0, 1, 0], [0, 0, 0.5], [0, 0, 0.5]]  # taps at -1.5, 0, 1.5
    assert stretch(3, 9, 6, torch.zeros(1)).tolist() == wanted
    assert stretch(3, 3, 6, torch.zeros(1)).tolist() == [[0.5, 0, 0], [0.5, 1, 0.5], [0, 0, 0.5]]
