"""``rope_raster``: the angles of RMT, in double precision, under every policy that moves positions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_encodings import make
from torch import Tensor

from visionpe import Grid, create_encoding


def turned(x: Tensor, index: Tensor, theta: float = 10000.0) -> Tensor:
    """``(B, heads, N, d)`` by the index of each token, written with complex numbers."""
    pairs = x.shape[-1] // 2
    freqs = theta ** (-torch.arange(pairs, dtype=torch.float64) / max(pairs - 1, 1))
    unit = torch.polar(torch.ones(()).double(), index.double()[:, None] * freqs)  # (N, pairs)
    z = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(z * unit).flatten(-2)


def raster(rows: Tensor, columns: Tensor, width: float) -> Tensor:
    return (rows[:, None] * width + columns).flatten()


@pytest.mark.parametrize("dim", [2, 6, 16])
@pytest.mark.parametrize("layout", ["adjacent", "half"])
def test_formula(dim: int, layout: Any) -> None:
    encoding = create_encoding({"name": "rope_raster", "layout": layout}, dim=2 * dim, num_heads=2, grid_size=(4, 4))
    q = torch.randn(1, 2, 3 + 35, dim, dtype=torch.float64)
    out, _ = encoding.rotate(q, q, Grid((5, 7), prefix=3))
    torch.testing.assert_close(out[:, :, :3], q[:, :, :3], atol=0, rtol=0)
    order = torch.arange(dim) if layout == "adjacent" else torch.arange(dim).view(2, -1).T.flatten()
    wanted = turned(q[:, :, 3:][..., order], torch.arange(35))
    torch.testing.assert_close(out[:, :, 3:][..., order], wanted, atol=2e-5, rtol=0)  # frequencies are float32


@pytest.mark.parametrize(
    ("policy", "down", "right", "width"),
    [
        ("extrapolate", 1, 1, 9),
        ("interpolate", 4 / 6, 5 / 9, 5),
        ("rescale(0.5)", (4 / 6) ** 0.5, (5 / 9) ** 0.5, 45**0.5),
    ],
)
def test_policies_of_positions(policy: str, down: float, right: float, width: float) -> None:
    """Trained on 4 x 5, run on 6 x 9: a step down turns as far as a row is long."""
    encoding = create_encoding("rope_raster", dim=16, num_heads=1, grid_size=(4, 5), policy=policy)
    q = torch.randn(1, 1, 54, 16, dtype=torch.float64)
    wanted = turned(q, raster(down * torch.arange(6), right * torch.arange(9), width))
    torch.testing.assert_close(encoding.rotate(q, q, Grid((6, 9)))[0], wanted, atol=2e-4, rtol=0)
    trained = torch.randn(1, 1, 20, 16, dtype=torch.float64)
    out = encoding.rotate(trained, trained, Grid((4, 5)))[0]
    torch.testing.assert_close(out, turned(trained, torch.arange(20)), atol=2e-5, rtol=0)


def test_policies_of_frequencies_count_all_tokens() -> None:
    """NTK leaves the fastest pair and stretches the slowest by the ratio of all tokens."""
    encoding = create_encoding("rope_raster", dim=8, num_heads=1, grid_size=(4, 5), policy="ntk")
    freqs = encoding.frequencies(0, torch.device("cpu"))
    adapted = encoding._adapted(freqs, Grid((8, 10)))
    assert adapted.shape == freqs.shape == (1, 1, 4)
    torch.testing.assert_close(adapted[0, 0, [0, 3]], freqs[0, 0, [0, 3]] / torch.tensor([1.0, 4.0]))
    still = create_encoding({"name": "rope_raster", "p": 0.5}, dim=8, num_heads=1)
    kept = still._turning(freqs, Grid((14, 14)))[0, 0]
    assert (kept[:2] > 0).all()
    assert not kept[2:].any()


def test_listed_coordinates_and_three_axes() -> None:
    q = torch.randn(1, 2, 24, 16)
    encoding = make("rope_raster", (2, 3, 4))
    dense, _ = encoding.rotate(q, q, Grid((2, 3, 4)))
    listed, _ = encoding.rotate(q, q, Grid((2, 3, 4), coords=Grid((2, 3, 4)).positions()))
    torch.testing.assert_close(dense, listed)
    torch.testing.assert_close(dense.double(), turned(q.double(), torch.arange(24)), atol=1e-5, rtol=0)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"head dimension 3; rope_raster turns channel pairs on one axis .* of 2"):
        create_encoding("rope_raster", dim=3, num_heads=1)
    with pytest.raises(ValueError, match=r"layout='axis_half': .*; allowed: adjacent, half"):
        create_encoding({"name": "rope_raster", "layout": "axis_half"}, dim=8, num_heads=1)
