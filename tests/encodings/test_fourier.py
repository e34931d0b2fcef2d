"""Learnable Fourier features."""

from __future__ import annotations

from math import cos, erf, sin, sqrt

import pytest
import torch
from zoo_checks import check_compile, check_export, check_gradients, check_sizes, make

from visionpe import Grid, create_encoding

SMALL = {"name": "fourier", "features": 12, "hidden": 5}


def by_hand(encoding: torch.nn.Module, points: list[list[float]]) -> list[float]:
    """One token: for each group of coordinates, Algorithm 1 in plain Python."""
    out = []
    for point in points:
        angles = [sum(w * p for w, p in zip(row, point)) for row in encoding.frequencies.tolist()]
        r = [f(a) / sqrt(2 * len(angles)) for f in (cos, sin) for a in angles]
        y = [
            sum(w * f for w, f in zip(row, r)) + b
            for row, b in zip(*map(torch.Tensor.tolist, encoding.fc1.parameters()))
        ]
        y = [h * 0.5 * (1 + erf(h / sqrt(2))) for h in y]
        out += [
            sum(w * h for w, h in zip(row, y)) + b
            for row, b in zip(*map(torch.Tensor.tolist, encoding.fc2.parameters()))
        ]
    return out


@pytest.mark.parametrize("groups", [1, 2])
def test_formula(groups: int) -> None:
    encoding = make({**SMALL, "groups": groups}, grid_size=(4, 6))["fourier"]
    added = encoding.add(torch.zeros(1, 12, 16), Grid((2, 6)))[0]
    for token in (0, 4, 11):
        point = [token // 6 / 2, token % 6 / 6]  # from 0 to 1 at every size
        wanted = by_hand(encoding, [point] if groups == 1 else [[p] for p in point])
        assert added[token].tolist() == pytest.approx(wanted, abs=1e-5)
    encoding.set_policy("extrapolate")
    point = [7 / 4, 2 / 6]  # the step of the trained grid
    wanted = by_hand(encoding, [point] if groups == 1 else [[p] for p in point])
    added = encoding.add(torch.zeros(1, 24, 16), Grid((8, 3)))[0]
    assert added[7 * 3 + 2].tolist() == pytest.approx(wanted, abs=1e-5)


def test_three_axes() -> None:
    encoding = make(SMALL, grid_size=(2, 4, 6))["fourier"]
    added = encoding.add(torch.zeros(1, 30, 16), Grid((2, 3, 5)))[0]
    wanted = by_hand(encoding, [[1 / 2, 2 / 3, 3 / 5]])
    assert added[1 * 15 + 2 * 5 + 3].tolist() == pytest.approx(wanted, abs=1e-5)
    with pytest.raises(ValueError, match="fourier was built for 3 axes, the tokens stand on 2"):
        encoding.add(torch.zeros(1, 4, 16), Grid((2, 2)))


def test_initial_frequencies_and_scale() -> None:
    encoding = create_encoding({"name": "fourier", "gamma": 4.0, "features": 4000}, dim=64, num_heads=1)
    assert encoding.frequencies.std().item() == pytest.approx(1 / 4, rel=0.05)
    added = encoding.add(torch.zeros(1, 196, 64), Grid((14, 14)))
    assert 0.2 < added.std() < 2
    assert encoding.no_weight_decay() == {"frequencies"}


def test_coordinates_and_precision() -> None:
    encoding = make(SMALL)
    listed = Grid((5, 7), coords=Grid((5, 7)).positions().expand(2, -1, -1))
    x = torch.randn(2, 35, 16)
    torch.testing.assert_close(encoding.add(x, listed), encoding.add(x, Grid((5, 7))))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoding.add(x, Grid((5, 7))), encoding.add(x, Grid((5, 7))).float())
        inside = encoding.add(x, Grid((5, 7)))
    torch.testing.assert_close(inside, encoding.add(x, Grid((5, 7))), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 7}, "features=7 must be even"),
        ({"hidden": 0}, "hidden=0 must be positive"),
        ({"gamma": 0.0}, "gamma=0.0 must be positive"),
        ({"groups": 3}, "groups=3 must divide the 2 axes and dim=16"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make({"name": "fourier", **options})


@pytest.mark.parametrize("groups", [1, 2])
def test_gradients(groups: int) -> None:
    check_gradients({**SMALL, "groups": groups})


def test_in_a_model() -> None:
    check_sizes(SMALL)
    check_export(SMALL)


@pytest.mark.long
def test_compiled() -> None:
    check_compile(SMALL)
