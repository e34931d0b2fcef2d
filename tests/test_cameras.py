"""Cameras, and grids of several views."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from small_cameras import cameras, pinholes, rigid
from torch import Tensor

from visionpe import Cameras, Grid
from visionpe.cameras import affine_inverse

EYE = torch.eye(4).repeat(2, 1, 1)


def test_inverse() -> None:
    m = torch.eye(4, dtype=torch.float64).repeat(50, 1, 1)
    m[:, :3] = torch.randn(50, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(affine_inverse(m), torch.linalg.inv(m), atol=1e-9, rtol=1e-9)


def test_intrinsics_hold_at_every_size() -> None:
    k, e = pinholes(2, 3, size=(24, 32)), rigid(2, 3)
    small = Cameras.from_pixels(e, k, (24, 32))
    twice = k * torch.tensor([[2.0], [3.0], [1.0]], dtype=torch.float64)
    large = Cameras.from_pixels(e, twice, (72, 64))
    torch.testing.assert_close(small.intrinsics, large.intrinsics)
    assert (small.count, small.batch) == (3, 2)
    corner = small.intrinsics @ torch.linalg.inv(k) @ torch.tensor([32.0, 24, 1], dtype=torch.float64)
    torch.testing.assert_close(corner, torch.ones_like(corner))  # the far corner of the image
    plain = Cameras.pinhole(e[0], 40, (24, 32))
    torch.testing.assert_close(plain.intrinsics[1] @ torch.tensor([0, 0, 7.0]).double(), plain.intrinsics[1, :, 2] * 7)
    assert plain.intrinsics.shape == (3, 3, 3)
    assert plain.batch is None


def test_told_from_the_first() -> None:
    seen = cameras(2, 3)
    first = seen.from_first()
    torch.testing.assert_close(first.extrinsics[:, 0], torch.eye(4).double().expand(2, 4, 4))
    torch.testing.assert_close(first.extrinsics @ seen.extrinsics[:, :1], seen.extrinsics)
    for other in (pickle.loads(pickle.dumps(seen)), copy.deepcopy(seen), seen.to(torch.float64)):
        assert torch.equal(other.extrinsics, seen.extrinsics)
        assert torch.equal(other.intrinsics, seen.intrinsics)
    assert seen.to(torch.float32).extrinsics.dtype == torch.float32


def changed(index: tuple[int, ...], value: float, side: int = 4) -> Tensor:
    m = torch.eye(side).repeat(2, 1, 1)
    m[index] = value
    return m


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"extrinsics": [[1]]}, "extrinsics=list: no matrices"),
        ({"extrinsics": EYE.bfloat16()}, r"extrinsics=torch.bfloat16: no matrices of enough digits; allowed: float32"),
        ({"extrinsics": EYE[0]}, r"extrinsics=\(4, 4\) is no shape of them; allowed: .*\(V, 4, 4\) or \(B, V, 4, 4\)"),
        ({"extrinsics": EYE[:, :3]}, r"extrinsics=\(2, 3, 4\) is no shape"),
        ({"extrinsics": EYE[:0]}, r"extrinsics=\(0, 4, 4\) is no shape"),
        ({"extrinsics": changed((1, 0, 3), float("nan"))}, "extrinsics hold NaN or infinity"),
        ({"extrinsics": changed((1, 3, 0), 1.0)}, "extrinsics have another last row"),
        ({"extrinsics": changed((1, 2, 2), 0.0)}, "extrinsics of camera 1 has no inverse"),
        (
            {"intrinsics": torch.eye(4).repeat(2, 1, 1)},
            r"intrinsics=\(2, 4, 4\) is no shape of them; allowed: .*3, 3\)",
        ),
        ({"intrinsics": changed((0, 1, 1), 0.0, 3)}, "intrinsics of camera 0 has no inverse"),
        ({"intrinsics": changed((0, 0, 2), float("inf"), 3)}, "intrinsics hold NaN"),
        ({"intrinsics": torch.eye(3).repeat(3, 1, 1)}, r"intrinsics=\(3, 3, 3\) are of other views than extrinsics="),
        (
            {"extrinsics": EYE.repeat(3, 1, 1, 1), "intrinsics": torch.eye(3).repeat(2, 2, 1, 1)},
            r"intrinsics=\(2, 2, 3, 3\) are of other views .* the same V, and the same B",
        ),
    ],
)
def test_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        Cameras(**{"extrinsics": EYE, **given})


def test_refused_in_pixels() -> None:
    for size in ((0, 3), (3,), "ab"):
        with pytest.raises((ValueError, TypeError), match="image_size="):
            Cameras.from_pixels(EYE, torch.eye(3).repeat(2, 1, 1), size)
    with pytest.raises(ValueError, match="focal=0 must be positive"):
        Cameras.pinhole(EYE, 0, (3, 4))


def test_where_the_tokens_of_views_stand() -> None:
    grid = Grid((2, 3), 1, cameras=cameras(4))
    assert (grid.num_spatial, grid.num_tokens, grid.axes, grid.dense) == (24, 25, 2, False)
    assert torch.equal(grid.positions(), Grid((2, 3)).positions().repeat(4, 1))
    assert torch.equal(grid.whole_positions("mine"), Grid((2, 3)).positions(dtype=torch.long).repeat(4, 1))
    told = torch.arange(4.0)[:, None, None]
    assert torch.equal(grid.of_views(told).flatten(), torch.arange(4.0).repeat_interleave(6))
    index = torch.stack([torch.randperm(24)[:5] for _ in range(2)])
    some = grid.kept(index)
    assert torch.equal(some.of_views(told)[..., 0, 0], (index // 6).float())
    assert torch.equal(some.positions()[1], grid.positions()[index[1]])
    batched = torch.arange(8.0).view(2, 4, 1, 1)
    assert torch.equal(some.of_views(batched)[1, :, 0, 0], 4 + (index[1] // 6).float())
    shared = Grid((2, 3), coords=grid.positions()[index[0]], cameras=grid.cameras, views=index[0] // 6)
    assert torch.equal(shared.of_views(batched)[..., 0, 0], torch.stack([index[0] // 6, 4 + index[0] // 6]).float())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cameras": EYE}, "cameras=Tensor: nothing known .*allowed: a visionpe.Cameras"),
        ({"views": torch.zeros(6, dtype=torch.long)}, "views without cameras"),
        ({"cameras": Cameras(EYE), "queries": (1, 1)}, r"queries=\(1, 1\) with cameras"),
        ({"cameras": Cameras(EYE), "stride": (2, 2)}, r"queries=\(1, 2\) with cameras"),
        ({"cameras": Cameras(EYE), "cloud": torch.zeros(6)}, "cloud with cameras"),
        ({"cameras": Cameras(EYE), "coords": torch.zeros(5, 2)}, r"coords=\(5, 2\) are no equal shares of 2 cameras"),
        ({"cameras": Cameras(EYE), "views": torch.zeros(6).long()}, r"views=\(6,\) with coords=None"),
        (
            {"cameras": Cameras(EYE), "coords": torch.zeros(5, 2), "views": torch.zeros(6).long()},
            r"views=\(6,\) with c",
        ),
        (
            {"cameras": Cameras(EYE), "coords": torch.zeros(5, 2), "views": torch.zeros(5)},
            "views=torch.float32: no num",
        ),
    ],
)
def test_refused_of_grids(given: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        Grid((2, 3), **given)
