"""Absolute window embedding."""

from __future__ import annotations

import pytest
import timm
import torch
from zoo_checks import check_compile, check_export, check_gradients, check_sizes, close, make, read

from visionpe import Grid

SMALL = {"name": "abswin", "window": (2, 3), "background": 4}


def load(encoding: torch.nn.Module, table: torch.Tensor, window: torch.Tensor) -> None:
    maps = {"table": table, "window_table": window}
    encoding.load_state_dict({k: v[0].permute(1, 2, 0) for k, v in maps.items()})


def test_sam2() -> None:
    weights, _, outputs, _ = read("hiera_abswin_sam2")
    encoding = make({"name": "abswin", "window": 8, "background": 4}, dim=8)["abswin"]
    load(encoding, weights["pos_embed"], weights["pos_embed_window"])
    wanted = outputs["nonsquare.pos_embed_used"]
    added = encoding.add(torch.zeros(1, 16 * 24, 8), Grid((16, 24)))
    close(added.view(1, 16, 24, 8), wanted)


@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_timm(size: tuple[int, int]) -> None:
    hiera = timm.create_model(
        "hiera_small_abswin_256", img_size=size, embed_dim=8, stages=(1, 1, 1, 1), global_pos_size=(5, 7)
    )
    torch.nn.init.normal_(hiera.pos_embed)
    torch.nn.init.normal_(hiera.pos_embed_win)
    grid = size[0] // 4, size[1] // 4
    with torch.no_grad():
        wanted = hiera._pos_embed(torch.zeros(1, grid[0] * grid[1], 8))
    encodings = {}
    for form in ("timm", "sam2"):
        spec = {"name": "abswin", "form": form, "window": 8, "background": (5, 7)}
        encoding = make(spec, dim=8)["abswin"]
        load(encoding, hiera.pos_embed, hiera.pos_embed_win)
        encodings[form] = encoding.add(torch.zeros(1, grid[0] * grid[1], 8), Grid(grid)).detach()
    close(encodings["timm"], wanted)
    assert (encodings["sam2"] - wanted).abs().max() > 1e-2


def test_formula() -> None:
    """A window table alone repeats, and ends in part of a window; a constant global table is the same everywhere."""
    encoding = make(SMALL)["abswin"]
    with torch.no_grad():
        encoding.table.fill_(3)
    added = encoding.add(torch.zeros(1, 5 * 7, 16), Grid((5, 7))).view(5, 7, 16)
    for row in range(5):
        for column in range(7):
            torch.testing.assert_close(added[row, column], 3 + encoding.window_table[row % 2, column % 3])


def test_coordinates() -> None:
    encoding, coords = make(SMALL), torch.tensor([[2.0, 5.0], [0.0, 1.0]])
    x = torch.randn(1, 2, 16)
    whole = encoding.add(torch.zeros(1, 28, 16), Grid((4, 7)))
    torch.testing.assert_close(encoding.add(x, Grid((4, 7), coords=coords)), x + whole[:, [19, 1]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "hiera"}, "form='hiera' is unknown; allowed: sam2, timm"),
        ({"window": 0}, "window=0 is no size"),
        ({"background": (3, 3, 3)}, r"background=\(3, 3, 3\) is no size"),
        ({"policy": "bicubic"}, "policy='bicubic' is unknown to 'abswin'; allowed: none"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make({"name": "abswin", **options})
    with pytest.raises(ValueError, match=r"grid_size=\(2, 2, 2\): abswin stands on two axes"):
        make("abswin", grid_size=(2, 2, 2))


@pytest.mark.parametrize("form", ["sam2", "timm"])
def test_gradients(form: str) -> None:
    check_gradients({**SMALL, "form": form})


def test_in_a_model() -> None:
    check_sizes(SMALL)
    check_export(SMALL)


@pytest.mark.long
def test_compiled() -> None:
    check_compile(SMALL)
