"""Rays of tokens, by hand and by what they must meet."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import randomize
from small_cameras import cameras, moved
from torch import Tensor

from visionpe import Cameras, Grid, create_encoding

SIZE = (2, 3)
KINDS = ["plucker", "ray", "direction", "points"]


def make(**options: Any) -> Any:
    spec = {"name": "rays", "points": 3, "near": 1.0, "far": 5.0, **options}
    return create_encoding(spec, dim=16, num_heads=2, grid_size=SIZE).double()


def told(encoding: Any, grid: Grid) -> Tensor:
    return encoding.looks(grid, device=torch.device("cpu"), dtype=torch.float64)


@pytest.mark.parametrize("frame", ["first", "world", "camera"])
def test_points_are_seen_where_their_patches_are(frame: str) -> None:
    """Projected by the camera, each place on a ray falls on the middle of its patch, at its depth."""
    seen = cameras(2, 3)
    grid = Grid(SIZE, 1, cameras=seen)
    points = told(make(kind="points", frame=frame), grid).unflatten(-1, (3, 3))  # (B, N, points, 3)
    world = {"first": seen.from_first().extrinsics, "world": seen.extrinsics}.get(frame)
    for sample in range(2):
        for token in range(18):
            view, place = divmod(token, 6)
            pose = torch.eye(4).double() if world is None else world[sample, view]
            local = points[sample, token] @ pose[:3, :3].T + pose[:3, 3]
            torch.testing.assert_close(local[:, 2], torch.tensor([1.0, 3.0, 5.0]).double())
            image = local @ seen.intrinsics[sample, view].T
            x, y = (image[:, :2] / image[:, 2:]).unbind(-1)
            torch.testing.assert_close(x, torch.full_like(x, (place % 3 + 0.5) / 3))
            torch.testing.assert_close(y, torch.full_like(y, (place // 3 + 0.5) / 2))


@pytest.mark.parametrize("frame", ["first", "world", "camera"])
def test_kinds_are_of_one_ray(frame: str) -> None:
    grid = Grid(SIZE, cameras=cameras(2, 3))
    moment, d = told(make(frame=frame), grid).split(3, dim=-1)
    origin, other = told(make(kind="ray", frame=frame), grid).split(3, dim=-1)
    points = told(make(kind="points", frame=frame), grid).unflatten(-1, (3, 3))
    assert torch.equal(told(make(kind="direction", frame=frame), grid), d)
    assert torch.equal(d, other)
    torch.testing.assert_close(d.norm(dim=-1), torch.ones(2, 18).double())
    torch.testing.assert_close(torch.linalg.cross(origin, d), moment)
    for i in range(3):  # every place on the ray has its moment
        torch.testing.assert_close(torch.linalg.cross(points[..., i, :], d), moment)
        along = points[..., i, :] - origin
        torch.testing.assert_close(torch.nn.functional.normalize(along, dim=-1), d)


@pytest.mark.parametrize("kind", KINDS)
def test_worlds(kind: str) -> None:
    """Told from the first camera, what the world is does not matter; in the world it does; one's own is blind."""
    seen = cameras(2, 3)
    for frame in ("first", "world", "camera"):
        encoding = make(kind=kind, frame=frame)
        here, there, alone = (
            told(encoding, Grid(SIZE, cameras=c)).expand(2, -1, -1) for c in (seen, moved(seen), moved(seen, 1))
        )
        assert ((here - there).abs().max() < 1e-10) == (frame != "world")
        changed = ((here - alone).abs().amax((0, 2)) > 1e-3).unflatten(0, (3, 6))
        assert changed.all(1).tolist() == changed.any(1).tolist() == [False, frame != "camera", False]


def test_a_single_image() -> None:
    """A camera at the origin, with the focal length of the option, in the longer side."""
    for size in ((2, 3), (4, 4), (6, 2)):
        encoding = make(focal=0.75, kind="direction")
        pixels = tuple(8 * n for n in size)
        eye = torch.eye(4)[None].double()
        wanted = told(encoding, Grid(size, cameras=Cameras.pinhole(eye, 0.75 * max(pixels), pixels)))
        torch.testing.assert_close(told(encoding, Grid(size)), wanted)


def test_gradients() -> None:
    encoding = randomize(make())
    x = torch.randn(2, 18, 16, dtype=torch.float64, requires_grad=True)
    seen = cameras(2, 3)
    poses = seen.extrinsics[..., :3, :].clone().requires_grad_()
    last = torch.tensor([0.0, 0, 0, 1], dtype=torch.float64).expand(2, 3, 1, 4)

    def objective(x: Tensor, poses: Tensor, *parameters: Tensor) -> Tensor:
        grid = Grid(SIZE, cameras=Cameras(torch.cat((poses, last), dim=-2), seen.intrinsics))
        return encoding.add(x, grid).sin().sum()

    assert torch.autograd.gradcheck(objective, (x, poses, *encoding.parameters()), fast_mode=True)


def test_nothing_is_added_at_first() -> None:
    x = torch.randn(2, 18, 16, dtype=torch.float64)
    assert torch.equal(make().add(x, Grid(SIZE, cameras=cameras(2, 3))), x)


def test_few_digits() -> None:
    encoding, seen = randomize(make()), cameras(2, 3, far=30.0)
    x = torch.zeros(2, 18, 16, dtype=torch.float64)
    wanted = encoding.add(x, Grid(SIZE, cameras=seen))
    encoding, near = encoding.float(), Grid(SIZE, cameras=seen.to(torch.float32))
    plain = encoding.add(x.float(), near)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoding.add(x.float(), near), plain)
        got = encoding.bfloat16().add(x.bfloat16(), near)
    assert got.dtype == torch.bfloat16
    assert (got - wanted).norm() / wanted.norm() < 0.01


def test_refused() -> None:
    with pytest.raises(ValueError, match=r"far=0.5 is below near=2.0; allowed"):
        make(near=2.0, far=0.5)
    with pytest.raises(ValueError, match="cameras without intrinsics: 'rays' do not know where patches look"):
        told(make(), Grid(SIZE, cameras=Cameras(torch.eye(4)[None])))
