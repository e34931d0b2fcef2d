"""LieRE against its published code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from visionpe import Grid, create_encoding

REFERENCE = Path(__file__).parents[2] / "reference"


def make(heads: int = 1, head_dim: int = 16, size: tuple[int, ...] = (4, 4), **options: Any) -> Any:
    spec = {"name": "liere", **options}
    return create_encoding(spec, dim=heads * head_dim, num_heads=heads, depth=2, grid_size=size).eval()


@pytest.mark.parametrize("size", [(4, 4), (3, 5)])
@pytest.mark.parametrize(("name", "heads", "block_size"), [("block8", 1, 8), ("pairs", 2, 4)])
def test_rotations_of_the_published_code(name: str, heads: int, block_size: int, size: tuple[int, int]) -> None:
    data = load_file(REFERENCE / "liere.safetensors")
    encoding = make(heads, 64, block_size=block_size)
    with torch.no_grad():
        encoding.generators[:, 1] = data[f"{name}.generators"][:, 0].unflatten(1, (heads, -1))
    key = f"{name}.{size[0]}x{size[1]}"
    q = data[f"{key}.q"].float()
    for grid in (Grid(size, 1), Grid(size, 1, coords=Grid(size).positions())):
        turned, _ = encoding.rotate(q, q, grid, layer=1)
        torch.testing.assert_close(turned, data[f"{key}.turned"], atol=2e-5, rtol=1e-5)


def test_generators_need_not_commute() -> None:
    """Of two channels they do, and logits depend on the offset alone; of more they do not."""
    q, k = torch.randn(2, 1, 1, 9, 16)
    here = Grid((3, 3)).positions()
    for block_size, relative in ((2, True), (8, False)):
        encoding = make(block_size=block_size)
        found = []
        for coords in (here, here + 3):
            a, b = encoding.rotate(q, k, Grid((9, 9), coords=coords))
            found.append(a @ b.mT)
        assert ((found[0] - found[1]).abs().max() < 1e-3) == relative


def test_kept_while_generators_stay() -> None:
    encoding, options = make(), {"layer": 0, "device": torch.device("cpu"), "dtype": torch.float32}
    with torch.no_grad():
        for grid in (Grid((4, 4)), Grid((3, 6), 1)):
            first = encoding.rotation(grid, **options)
            assert encoding.rotation(grid, **options) is first
            encoding.generators.data[:, 0] *= 0.5
            second = encoding.rotation(grid, **options)
            assert not torch.equal(second, first)
            with torch.enable_grad():
                assert torch.equal(second, encoding.rotation(grid, **options))
    assert len(encoding.kept) == 1
    assert not len(encoding.train().kept)


def test_refused() -> None:
    for block_size in (0, 1, 3, 32):
        with pytest.raises(ValueError, match=f"block_size={block_size} must be 2 or more and divide"):
            make(block_size=block_size)
