"""How often Point Transformer V3 waits for numbers, and that those it works out are right."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_ptv3 import grid_sampled, tiny
from torch.utils._python_dispatch import TorchDispatchMode

from visionpe.sparse import ORDERS, Voxels
from visionpe.sparse.orders import bits_of


def _looks(model: Any, x: Voxels) -> int:
    """How often a pass asks for a number, for which a GPU has to be waited for."""

    class Looks(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.bincount.default)
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), Looks() as looks:
        model(x)
    return looks.count


@pytest.mark.parametrize("form", ["conv", "linear"])
def test_numbers_are_asked_for_once_a_level(form: str) -> None:
    """And not by each of the curves, which have three blocks of a level to themselves here."""
    depths = {"depths": (3, 3, 3), "decoder_depths": (1, 1), "form": form}
    x = grid_sampled(90, clouds=2)
    assert _looks(tiny(orders=ORDERS[:1], **depths), x) == _looks(tiny(orders=ORDERS[:3], **depths), x)


@pytest.mark.parametrize("stride", [1, 4])
def test_bits_are_those_of_the_cells(stride: int) -> None:
    """Of every level, though only the finest is asked."""
    x = grid_sampled(150, clouds=2)
    coords = x.coords * torch.tensor([1, *[stride] * 3])
    model = tiny("ptv3_b", form="linear")
    with torch.no_grad():
        for _, level, _, bits in model.walk(Voxels(x.features, coords, coords[:, 1:] + 0.5, stride)):
            assert level.cells.coords is not None
            assert bits == bits_of(int(level.cells.coords.max()), model.curve_margin)
