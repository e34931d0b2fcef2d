"""PRoPE and GTA, one pair of tokens after the other, and as their published code has them."""

from __future__ import annotations

from math import pi
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_cameras import HEAD, HEADS, SIZE, SPECS, cameras, make, qkv_of, run
from torch import Tensor

from visionpe import Cameras, Grid, PositionEncoding

REFERENCE = load_file(Path(__file__).parents[2] / "reference" / "cameras.safetensors")


def turn(angle: Tensor) -> Tensor:
    return torch.stack((angle.cos(), -angle.sin(), angle.sin(), angle.cos())).view(2, 2)


def prope_between(seen: Cameras, sample: int, i: Any, j: Any) -> Tensor:
    """The matrix through which token i sees token j, each a view and a place, or None for a prefix token."""

    def projection(token: Any) -> Tensor:
        lifted = torch.eye(4, dtype=torch.float64)
        if token is None:
            return seen.extrinsics[sample, 0]
        lifted[:3, :3] = seen.intrinsics[sample, token[0]]
        lifted[:2, 2] -= 0.5
        return lifted @ seen.extrinsics[sample, token[0]]

    out = torch.zeros(HEAD, HEAD, dtype=torch.float64)
    out[:4, :4] = out[4:8, 4:8] = projection(i) @ torch.linalg.inv(projection(j))
    for axis in (0, 1):  # x, then y, of pairs two channels apart
        a, b = (0.0 if token is None else token[1][1 - axis] for token in (i, j))
        for pair, frequency in enumerate((1.0, 0.25)):
            where = torch.tensor([8 + 4 * axis + pair, 8 + 4 * axis + pair + 2])
            out[where[:, None], where] = turn(torch.as_tensor((a - b) * frequency, dtype=torch.float64))
    return out


def gta_between(seen: Cameras, sample: int, i: Any, j: Any, se3: int, so2: int, scale: float, most: float) -> Tensor:
    def pose(token: Any) -> Tensor:
        m = seen.extrinsics[sample, 0 if token is None else token[0]].clone()
        m[:3, 3] *= scale
        return m

    out = torch.eye(HEAD, dtype=torch.float64)
    still, n = HEAD - se3 - so2, so2 // 4
    for block in range(still, still + se3, 4):
        out[block : block + 4, block : block + 4] = pose(i) @ torch.linalg.inv(pose(j))
    for pair in range(so2 // 2):
        axis, step = pair % 2, pair // 2
        a, b = (0.0 if token is None else (token[1][axis] + 0.5) / SIZE[axis] for token in (i, j))
        where = slice(still + se3 + 2 * pair, still + se3 + 2 * pair + 2)
        angle = torch.as_tensor((b - a) * 2 * pi * most * 2.0 ** (step + 1 - n), dtype=torch.float64)
        out[where, where] = turn(angle)
    return out


BETWEEN = {
    "prope": prope_between,
    "gta": lambda *args: gta_between(*args, 8, 8, 1.0, 1.0),
    "gta shares": lambda *args: gta_between(*args, 4, 8, 0.5, 2.0),
    "gta learned": lambda *args: gta_between(*args, 8, 8, 0.25, 1.0),
}


def slow(name: str, qkv: Tensor, seen: Cameras, prefix: int) -> tuple[Tensor, Tensor]:
    """Output and weights of attention, one pair of tokens after the other."""
    places = [(view, (y, x)) for view in range(seen.count) for y in range(SIZE[0]) for x in range(SIZE[1])]
    tokens: list[Any] = [None] * prefix + places
    q, k, v = qkv
    logits = torch.zeros(q.shape[0], HEADS, len(tokens), len(tokens), dtype=torch.float64)
    carried = torch.zeros(*logits.shape, HEAD, dtype=torch.float64)
    for sample in range(len(q)):
        for i, asks in enumerate(tokens):
            for j, told in enumerate(tokens):
                between = BETWEEN[name](seen, sample, asks, told)
                for head in range(HEADS):
                    logits[sample, head, i, j] = q[sample, head, i] @ between @ k[sample, head, j] * HEAD**-0.5
                    carried[sample, head, i, j] = between @ v[sample, head, j]
    weights = logits.softmax(-1)
    return (weights[..., None] * carried).sum(-2), weights


@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("name", SPECS)
@torch.no_grad()
def test_pair_by_pair(name: str, prefix: int) -> None:
    seen = cameras(2, 3)
    grid = Grid(SIZE, prefix, cameras=seen)
    qkv = qkv_of(grid)
    wanted, _ = slow(name, qkv, seen, prefix)
    torch.testing.assert_close(run(make(SPECS[name]), qkv, grid), wanted, atol=1e-10, rtol=1e-10)


class Spy(PositionEncoding):
    """Keeps what `mix` is given."""

    name = "spy"

    def mix(self, attended: Tensor, v: Tensor, grid: Grid, *, layer: int = 0, weights: Any = None) -> Tensor:
        self.seen = (attended, v, weights)
        return attended


@torch.no_grad()
def test_what_mix_is_told() -> None:
    """The output turned back, values as they were projected, and the weights of attention."""
    spy = Spy(dim=HEADS * HEAD, num_heads=HEADS)
    seen = cameras(2, 3)
    grid = Grid(SIZE, 1, cameras=seen)
    qkv = qkv_of(grid)
    wanted, rows = slow("prope", qkv, seen, 1)
    run(make(SPECS["prope"], SIZE, spy), qkv, grid)
    got, v, weights = spy.seen
    torch.testing.assert_close(got, wanted, atol=1e-10, rtol=1e-10)
    assert torch.equal(v, qkv[2])
    found = (weights.q @ weights.k.mT * HEAD**-0.5).softmax(-1)
    torch.testing.assert_close(found, rows, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(weights.rows(0, 5), rows[:, :, :5], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize(
    ("output", "spec", "intrinsics"),
    [
        ("prope", "prope", True),
        ("no_intrinsics", "prope", False),
        ("gta.1.0", "gta", True),
        ("gta.0.25", "gta(scale=0.25)", False),
        ("gta_triv.1.0", "gta(se3=4, so2=8)", False),
        ("gta_triv.0.25", "gta(se3=4, so2=8, scale=0.25, learned=True)", False),
    ],
)
@torch.no_grad()
def test_published_code(output: str, spec: str, intrinsics: bool) -> None:
    """PRoPE as copied by others from its authors, with base 100, GTA as its authors have it; both in float64."""
    qkv = torch.stack([REFERENCE[f"input.{name}"] for name in "qkv"])
    extrinsics = REFERENCE["input.extrinsics"]
    seen = (
        Cameras.from_pixels(extrinsics, REFERENCE["input.intrinsics"], (16, 32)) if intrinsics else Cameras(extrinsics)
    )
    got = run(make(spec, (2, 4)), qkv, Grid((2, 4), cameras=seen))
    tolerance = 1e-7 if spec == "prope" else 1e-12  # a tenth is none in float32
    torch.testing.assert_close(got, REFERENCE[f"output.{output}"], atol=tolerance, rtol=tolerance)


@torch.no_grad()
def test_slowest_pairs() -> None:
    """Those that the option `p` keeps still: of prope the last of each axis, of gta the first two."""
    for name, still in (("prope", [9, 11, 13, 15]), ("gta", [8, 9, 10, 11])):
        q = torch.randn(1, HEADS, 6, HEAD, dtype=torch.float64)
        turned, _ = make({"name": name, "p": 0.5}).rotate(q, q, Grid(SIZE))
        moves = (turned != q).flatten(0, 2).any(0)
        assert moves[8:].nonzero().flatten().tolist() == [c - 8 for c in range(8, 16) if c not in still]
