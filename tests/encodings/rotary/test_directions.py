"""Rotary encodings whose pairs look along other directions than the axes, against their published code."""

from __future__ import annotations

from math import cos, pi, sin, sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from timm.layers import apply_rot_embed_cat
from timm.layers.pos_embed_sincos import RotaryEmbeddingMRope
from torch import Tensor, nn

from visionpe import Grid, create_encoding
from visionpe.encodings.rotary.rope_golden import spread_directions

REFERENCE = Path(__file__).parents[2] / "reference"


def make(name: str, size: tuple[int, ...], heads: int, head_dim: int, **options: Any) -> nn.Module:
    spec = {"name": name, **options}
    return create_encoding(spec, dim=heads * head_dim, num_heads=heads, depth=1, grid_size=size).eval()


def rotated(encoding: nn.Module, x: Tensor, grid: Grid) -> Tensor:
    q, k = encoding.rotate(x.float(), x.float(), grid)
    assert torch.equal(q, k)
    return q


# Numbers of the code of arXiv 2602.03227 at 5 x 5 tokens, its trained size, and at 8 x 8.
SPIRAL: dict[str, dict[str, Any]] = {
    "k4": {"directions": 4, "max_freq": 1.5},
    "k8_shared": {"directions": 8, "shared": True},
    "k6": {"directions": 6},
    "k2": {"directions": 2},
}


@pytest.mark.parametrize("side", [5, 8])
@pytest.mark.parametrize("name", SPIRAL)
def test_spiral_of_the_published_code(name: str, side: int) -> None:
    data = load_file(REFERENCE / "rope_spiral.safetensors")
    x, wanted = data[f"{name}.{side}.x"], data[f"{name}.{side}.y"]
    options = {**SPIRAL[name], "policy": "interpolate"}
    sampled = make("rope_spiral", (5, 5), 1, x.shape[-1], form="sampled", **options)
    for grid in (Grid((side, side)), Grid((side, side), coords=Grid((side, side)).positions())):
        torch.testing.assert_close(rotated(sampled, x, grid), wanted, atol=1e-5, rtol=1e-5)
    projected = rotated(make("rope_spiral", (5, 5), 1, x.shape[-1], **options), x, Grid((side, side)))
    if name == "k2":  # the axes themselves: nothing falls from the map
        torch.testing.assert_close(projected, wanted, atol=1e-5, rtol=1e-5)
    else:
        assert (projected - wanted).abs().max() > 0.1


def test_spiral_by_hand() -> None:
    """Pairs of two share a direction; rows lead the first half, columns the second."""
    x = torch.randn(1, 1, 12, 16)
    out = rotated(make("rope_spiral", (3, 4), 1, 16, theta=100.0, max_freq=0.5), x, Grid((3, 4)))
    for token in (0, 5, 11):
        row, column = divmod(token, 4)
        for pair in range(8):
            a = pair // 2 % 2 * pi / 4
            along = cos(a) * row + sin(a) * column if pair < 4 else cos(a) * column - sin(a) * row
            angle = along * 0.5 * 100 ** (-(pair % 4) / 4)
            first, second = x[0, 0, token, 2 * pair : 2 * pair + 2].tolist()
            wanted = [first * cos(angle) - second * sin(angle), first * sin(angle) + second * cos(angle)]
            assert out[0, 0, token, 2 * pair : 2 * pair + 2].tolist() == pytest.approx(wanted, abs=1e-5)


def logits(encoding: nn.Module, q: Tensor, k: Tensor, coords: Tensor) -> Tensor:
    q, k = encoding.rotate(q, k, Grid((9, 9), coords=coords))
    return q @ k.transpose(-2, -1)


def test_only_the_projected_form_is_relative() -> None:
    q, k = torch.randn(2, 1, 1, 9, 16)
    here = Grid((3, 3)).positions()
    for form, relative in (("projected", True), ("sampled", False)):
        encoding = make("rope_spiral", (9, 9), 1, 16, form=form)
        moved = (logits(encoding, q, k, here) - logits(encoding, q, k, here + 6)).abs().max()
        assert (moved < 1e-4) == relative, form


def test_spiral_refuses() -> None:
    for options, said in (
        ({"directions": 3}, "directions=3"),
        ({"directions": 6}, "directions=6 with head dimension 16"),
        ({"directions": 8, "shared": True}, "directions=8 with head dimension 16"),
        ({"form": "sampled", "jitter_coords": 2.0}, "form='sampled'"),
    ):
        with pytest.raises(ValueError, match=said):
            make("rope_spiral", (4, 4), 1, 16, **options)
    with pytest.raises(ValueError, match="two axes"):
        make("rope_spiral", (4, 4, 4), 1, 16)


# Numbers of the code of jerryxio.ng/posts/nd-rope.
GOLDEN: dict[str, tuple[int, int, dict[str, Any]]] = {
    "plane": (2, 16, {}),
    "zeros": (3, 8, {"p": 0.25, "min_freq": 1.0, "max_freq": 64.0}),
    "space": (2, 12, {"min_freq": 0.5, "max_freq": 50.0}),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_gate_of_the_published_code(name: str) -> None:
    data = load_file(REFERENCE / "rope_golden.safetensors")
    heads, head_dim, options = GOLDEN[name]
    positions = data[f"{name}.positions"]  # x first, from -1 to 1
    size = (9,) * positions.shape[1]
    encoding = make("rope_golden", size, heads, head_dim, **options)
    grid = Grid(size, coords=(positions.flip(-1) + 1) * 4)
    # Positions in tokens round otherwise than those from -1 to 1: 1e-7 times 64 radians and the size of x.
    torch.testing.assert_close(rotated(encoding, data[f"{name}.x"], grid), data[f"{name}.y"], atol=5e-5, rtol=1e-5)


def test_golden_gate_by_angles_on_a_wide_grid() -> None:
    data = load_file(REFERENCE / "rope_golden.safetensors")
    for trained in ((4, 7), (6, 6)):  # interpolate: the image at hand counts
        encoding = make("rope_golden", trained, 2, 16, spread="angle")
        got = rotated(encoding, data["angle.x"], Grid((4, 7)))
        torch.testing.assert_close(got, data["angle.y"], atol=1e-5, rtol=1e-5)


def test_golden_gate_under_policies() -> None:
    """``extrapolate`` keeps the step of the trained grid; ``interpolate`` its reach, the aspect of the image too."""
    device = torch.device("cpu")
    encoding = make("rope_golden", (5, 5), 1, 8)
    assert encoding.policy == "interpolate"
    for size, reach in (((9, 9), (1, 1)), ((4, 9), (sqrt(4 / 9), sqrt(9 / 4)))):
        places = encoding.places(Grid(size), device, torch.float64)
        assert [p[-1].item() for p in places] == pytest.approx(reach)
        assert [p[0].item() for p in places] == pytest.approx([-r for r in reach])
    encoding.set_policy("extrapolate")
    places = encoding.places(Grid((4, 9)), device, torch.float64)
    assert [(p[1] - p[0]).item() for p in places] == pytest.approx([0.5, 0.5])


def test_directions_are_even() -> None:
    for axes, count in ((2, 64), (3, 200)):
        directions = spread_directions(count, axes)
        torch.testing.assert_close(directions.norm(dim=-1), torch.ones(count, dtype=torch.float64))
        assert directions.mean(0).abs().max() < 0.1
        torch.testing.assert_close(
            directions.T @ directions / count, torch.eye(axes).double() / axes, atol=0.05, rtol=0
        )


def test_golden_gate_refuses() -> None:
    with pytest.raises(ValueError, match=r"min_freq=3.* is above max_freq=2"):
        make("rope_golden", (4, 4), 1, 8, min_freq=3.0, max_freq=2.0)
    with pytest.raises(ValueError, match="spread='angle' with grid_size"):
        make("rope_golden", (4, 4, 4), 1, 8, spread="angle")


@pytest.mark.parametrize("head_dim", [20, 64])
def test_vjepa_of_the_published_code(head_dim: int) -> None:
    """Numbers of transformers' V-JEPA 2 on time, row and column, and of one frame on two axes."""
    data, size = load_file(REFERENCE / "rope_vjepa.safetensors"), {20: (3, 4, 4), 64: (2, 3, 3)}[head_dim]
    x, wanted = data[f"{head_dim}.x"], data[f"{head_dim}.y"]
    encoding = make("rope_vjepa", size, 2, head_dim, unequal=True)
    for grid in (Grid(size), Grid(size, coords=Grid(size).positions())):
        torch.testing.assert_close(rotated(encoding, x, grid), wanted, atol=1e-5, rtol=1e-5)
    frame = size[1] * size[2]
    image = rotated(make("rope_vjepa", size[1:], 2, head_dim, unequal=True), x[:, :, :frame], Grid(size[1:]))
    torch.testing.assert_close(image, wanted[:, :, :frame], atol=1e-5, rtol=1e-5)
    straight = rotated(make("rope_vjepa", size, 2, head_dim), x, Grid(size))
    assert (straight - wanted).abs().max() > 0.1
    torch.testing.assert_close(straight.norm(dim=-1), x.float().norm(dim=-1), atol=1e-4, rtol=1e-5)


def test_only_equal_pairs_are_relative() -> None:
    q, k = torch.randn(2, 1, 1, 9, 24)
    here = Grid((3, 3)).positions()
    for unequal in (False, True):
        encoding = make("rope_vjepa", (9, 9), 1, 24, unequal=unequal)
        moved = (logits(encoding, q, k, here) - logits(encoding, q, k, here + 6)).abs().max()
        assert (moved > 1e-2) == unequal
    with pytest.raises(ValueError, match="layout='half' with unequal=True"):
        make("rope_vjepa", (9, 9), 1, 24, unequal=True, layout="half")


def test_vjepa_without_frames_is_axial() -> None:
    x, grid = torch.randn(1, 2, 20, 16), Grid((4, 5))
    axial = make("rope_axial", (4, 5), 2, 16, theta=10000.0, grid_indexing="ij")
    torch.testing.assert_close(
        rotated(make("rope_vjepa", (4, 5), 2, 16, frames=False), x, grid), rotated(axial, x, grid)
    )


@pytest.mark.parametrize("section", [None, (8, 12, 12)])
def test_mrope_of_timm(section: tuple[int, int, int] | None) -> None:
    """timm's table on rows and columns, of 36 pairs; by default a third of them each."""
    theirs = RotaryEmbeddingMRope(72, mrope_section=section or (12, 12, 12))
    x = torch.randn(1, 2, 20, 72)
    encoding = make("rope_mrope", (4, 5), 2, 72, **({} if section is None else {"mrope_section": section}))
    wanted = apply_rot_embed_cat(x, theirs.get_embed([4, 5]), half=True)
    torch.testing.assert_close(rotated(encoding, x, Grid((4, 5))), wanted, atol=1e-5, rtol=1e-5)
