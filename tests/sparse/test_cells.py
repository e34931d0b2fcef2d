"""Cells are found by their coordinates, and what are no cells is refused."""

from __future__ import annotations

import pytest
import torch

from visionpe.sparse import CellIndex, check_cells, grouped, voxelize


def cloud(number: int = 60, clouds: int = 2, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    cells = [torch.randint(-5, 6, (number, 3), generator=generator).unique(dim=0) for _ in range(clouds)]
    cells = [each[torch.randperm(len(each), generator=generator)] for each in cells]
    return torch.cat([torch.cat((torch.full((len(c), 1), n), c), dim=1) for n, c in enumerate(cells)])


def test_find() -> None:
    cells = cloud()
    index = CellIndex(cells, margin=1)
    assert index.find(cells).tolist() == list(range(len(cells)))
    where = {tuple(cell): row for row, cell in enumerate(cells.tolist())}
    queries = torch.cartesian_prod(torch.arange(-1, 4), *[torch.arange(-8, 9)] * 3)  # outside of the box too
    found = index.find(queries)
    assert [where.get(tuple(q), -1) for q in queries.tolist()] == found.tolist()


def test_grouped() -> None:
    cells = cloud()
    coarse = cells.clone()
    coarse[:, 1:] = coarse[:, 1:].div(3, rounding_mode="floor")
    group, first = grouped(coarse)
    seen: dict = {}
    for row, cell in enumerate(map(tuple, coarse.tolist())):
        seen.setdefault(cell, (len(seen), row))
    assert group.tolist() == [seen[tuple(cell)][0] for cell in coarse.tolist()]
    assert first.tolist() == [row for _, row in seen.values()]
    assert (coarse[first][:, 0].diff() >= 0).all()


def test_check() -> None:
    cells = cloud()
    assert torch.equal(check_cells(cells.float()), cells)
    twice = torch.cat((cells, cells[-1:]))
    far = cells.clone()
    far[3, 2] = 2**31
    wrong = {
        "empty": cells[:0],
        "shape|1 \\+ axes": cells[:, :1],
        "whole": cells + 0.5,
        "whole numbers": torch.full((2, 4), torch.nan),
        "int32": far,
        "ascending": cells.flip(0),
        "1 rows": twice,
    }
    for message, given in wrong.items():
        with pytest.raises(ValueError, match=message):
            check_cells(given, "coords")
    corners = torch.tensor([[0, 0, 0, 0], [0, *[2**31 - 1] * 3]])
    with pytest.raises(ValueError, match=r"2 \*\* 62"):
        check_cells(corners)


def test_voxelize() -> None:
    points = torch.randn(500, 3) * 2
    batch = torch.arange(500) // 250
    coords, chosen, voxel = voxelize(points, size=0.5, batch=batch)
    assert torch.equal(coords[:, 1:], (points[chosen] / 0.5).floor().long())
    assert torch.equal(coords[voxel][:, 1:], (points / 0.5).floor().long())
    assert torch.equal(coords[voxel][:, 0], batch)
    firsts = [int((voxel == n).nonzero()[0]) for n in range(len(coords))]
    assert chosen.tolist() == firsts
    check_cells(coords)
    other = voxelize(points, size=0.5, batch=batch, generator=torch.Generator().manual_seed(1))
    assert torch.equal(other[0], coords)
    assert torch.equal(voxel[other[1]], torch.arange(len(coords)))
    assert not torch.equal(other[1], chosen)


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("at least one point", {"positions": torch.zeros(0, 3), "size": 1}),
        ("size=0", {"positions": torch.zeros(2, 3), "size": 0}),
        ("1 points with NaN", {"positions": torch.tensor([[0.0, torch.nan], [0.0, 0.0]]), "size": 1}),
        ("int32", {"positions": torch.full((1, 3), 1e10), "size": 1}),
        ("ascending", {"positions": torch.zeros(2, 3), "size": 1, "batch": torch.tensor([1, 0])}),
    ],
)
def test_voxelize_refuses(message: str, options: dict) -> None:
    with pytest.raises(ValueError, match=message):
        voxelize(**options)
