"""LePE: a convolution of the values."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from zoo_checks import check_compile, check_export, check_gradients, check_sizes, make

from visionpe import Grid


def mixed(window: tuple[int, int] | None, size: tuple[int, int], prefix: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ours, and the map of values ``(2, 16, height, width)`` that went in."""
    encoding, grid = make("lepe"), Grid(size, prefix, window=window)
    attended, v = (torch.randn(2, 2, grid.num_tokens, 8) for _ in range(2))
    out = encoding.mix(attended, v, grid, layer=1)
    assert torch.equal(out[:, :, :prefix], attended[:, :, :prefix])
    images = [(t[:, :, prefix:].transpose(2, 3).reshape(2, 16, *size)) for t in (out - attended, v)]
    return images[0], images[1], encoding["lepe"].convs[1]


@pytest.mark.parametrize("size", [(4, 4), (3, 7), (9, 2), (1, 1)])
@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_formula(size: tuple[int, int], prefix: int) -> None:
    local, v, conv = mixed(None, size, prefix)
    wanted = conv.bias[:, None, None].expand(16, *size).clone().repeat(2, 1, 1, 1)
    around = F.pad(v, (1, 1, 1, 1))
    for dy in range(3):
        for dx in range(3):
            wanted += conv.weight[:, 0, dy, dx, None, None] * around[..., dy : dy + size[0], dx : dx + size[1]]
    torch.testing.assert_close(local, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(6, 6), (5, 7), (2, 3)])
@pytest.mark.parametrize("window", [(6, 2), (3, 3), (2, 10)])
def test_windows_do_not_see_each_other(size: tuple[int, int], window: tuple[int, int]) -> None:
    local, v, conv = mixed(window, size, 2)
    for top in range(0, size[0], window[0]):
        for left in range(0, size[1], window[1]):
            part = (..., slice(top, top + window[0]), slice(left, left + window[1]))
            torch.testing.assert_close(local[part], conv(v[part]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 2}, "kernel_size=2 must be odd"),
        ({"policy": "bicubic"}, "policy='bicubic' is unknown to 'lepe'"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make({"name": "lepe", **options})


def test_holes_are_refused() -> None:
    v = torch.zeros(1, 2, 2, 8)
    with pytest.raises(ValueError, match="lepe needs the full map of tokens"):
        make("lepe").mix(v, v, Grid((4, 4), coords=torch.zeros(2, 2)))
    with pytest.raises(ValueError, match=r"grid_size=\(2, 2, 2\): lepe stands on two axes"):
        make("lepe", grid_size=(2, 2, 2))


def test_gradients() -> None:
    check_gradients("lepe")


def test_in_a_model() -> None:
    check_sizes("lepe")
    check_export("lepe")


@pytest.mark.long
def test_compiled() -> None:
    check_compile("lepe")
