"""Fractional coordinates of the rotary encodings: every size spans the trained range."""

from __future__ import annotations

import pytest
import timm
import torch
from zoo_checks import make

import visionpe
from visionpe import Composition, Grid

ROTARY = ["rope_axial", "rope_mixed"]


def pair(name: str, grid_size: tuple[int, ...] = (4, 6)) -> tuple[Composition, Composition]:
    """The encoding with and without, same parameters."""
    fractional, plain = make({"name": name, "fractional": True}, grid_size=grid_size), make(name, grid_size=grid_size)
    plain.load_state_dict(fractional.state_dict())
    return fractional, plain


def rotated(encoding: Composition, grid: Grid) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    q, k = torch.randn(2, 2, 2, grid.num_tokens, 8, generator=generator)
    return torch.stack(encoding.rotate(q, k, grid, layer=1))


@pytest.mark.parametrize("name", ROTARY)
def test_trained_size(name: str) -> None:
    fractional, plain = pair(name)
    for grid in (Grid((4, 6), 1), Grid((4, 6), 1, coords=Grid((4, 6)).positions()[::3])):
        assert torch.equal(rotated(fractional, grid), rotated(plain, grid))


@pytest.mark.parametrize("name", ROTARY)
@pytest.mark.parametrize("size", [(8, 12), (3, 5), (9, 4)])
def test_definition(name: str, size: tuple[int, int]) -> None:
    """A position is its fraction of the axis times the trained tokens; also where the tokens are listed."""
    fractional, plain = pair(name)
    whole = Grid(size).positions()
    places = whole / torch.tensor(size) * torch.tensor([4, 6])
    wanted = rotated(plain, Grid((4, 6), 1, coords=places))
    for grid in (Grid(size, 1), Grid(size, 1, coords=whole)):
        torch.testing.assert_close(rotated(fractional, grid), wanted, atol=1e-5, rtol=1e-5)
    each = torch.stack((whole + 0.25, whole.flip(0)))
    wanted = rotated(plain, Grid((4, 6), 1, coords=each / torch.tensor(size) * torch.tensor([4, 6])))
    torch.testing.assert_close(rotated(fractional, Grid(size, 1, coords=each)), wanted, atol=1e-5, rtol=1e-5)
    assert (rotated(fractional, Grid(size)) - rotated(plain, Grid(size))).abs().max() > 0.1


def test_twice_the_size_spans_the_same() -> None:
    part = pair("rope_axial")[0].parts[0]
    small, large = (part.coordinates(Grid(s), torch.device("cpu"), torch.float32) for s in ((4, 6), (8, 12)))
    for few, many in zip(small, large):
        assert torch.equal(many[::2], few)
        assert many[-1] < len(few)


@pytest.mark.parametrize("name", ROTARY)
def test_there_is_no_policy(name: str) -> None:
    part = pair(name)[0].parts[0]
    assert part.policies == ()
    with pytest.raises(ValueError, match=f"policy='extrapolate': '{name}' has no policy with fractional=True"):
        part.set_policy("extrapolate")
    with pytest.raises(ValueError, match=f"policy='interpolate': '{name}' has no policy with fractional=True"):
        make({"name": name, "fractional": True, "policy": "interpolate"})
    model = timm.create_model("none_vit_ti", depth=1, pos_encoding=[{"name": name, "fractional": True}, "ape"])
    assert "extrapolate" not in visionpe.policies(model)
    visionpe.set_policy(model, "bilinear")
    with pytest.raises(ValueError, match=rf"applies to no encoding .*\('{name}' has no policy with fractional=True\)"):
        visionpe.set_policy(model, "extrapolate")


def test_coordinates_that_are_fractions_already() -> None:
    with pytest.raises(ValueError, match="fractional=True: the coordinates of 'rope_norm' are not in tokens"):
        make({"name": "rope_norm", "fractional": True})
    assert make({"name": "rope_norm", "fractional": False}).parts[0].policies
    with pytest.raises(ValueError, match="'comrope' takes no option 'fractional'"):
        make({"name": "comrope", "fractional": True})
