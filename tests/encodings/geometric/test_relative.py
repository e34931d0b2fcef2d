"""PRoPE and GTA: cameras that move, and what must stay as it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_cameras import HEAD, HEADS, SIZE, SPECS, cameras, make, moved, pinholes, qkv_of, rigid, run
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from visionpe import Cameras, Composition, Grid, attend, create_encoding
from visionpe.attention.dispatch import AttentionWeights
from visionpe.backbones.shared.encoded import encoded_attention


@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize("name", SPECS)
@torch.no_grad()
def test_cameras_that_move(name: str, prefix: int) -> None:
    """All of them together: nothing changes. One alone, or with another lens: it does."""
    seen, encoding = cameras(2, 3), make(SPECS[name])
    grid = Grid(SIZE, prefix, cameras=seen)
    qkv = qkv_of(grid)
    here = run(encoding, qkv, grid)
    there = run(encoding, qkv, Grid(SIZE, prefix, cameras=moved(seen)))
    torch.testing.assert_close(there, here, atol=1e-10, rtol=1e-10)
    for view in range(3):
        alone = run(encoding, qkv, Grid(SIZE, prefix, cameras=moved(seen, view)))
        assert (alone - here).abs().amax((1, 2, 3)).min() > 1e-3
    lens = seen.intrinsics.clone()
    lens[:, 1, 0, 0] *= 2
    other = run(encoding, qkv, Grid(SIZE, prefix, cameras=Cameras(seen.extrinsics, lens)))
    assert ((other - here).abs().max() > 1e-3) == (name == "prope")


@torch.no_grad()
def test_one_view_sees_as_without_cameras() -> None:
    """Through itself alone, up to rounding; and every sample has cameras of its own."""
    for name in SPECS:
        encoding, one = make(SPECS[name]), cameras(2, 1)
        qkv = qkv_of(Grid(SIZE))
        wanted = run(encoding, qkv, Grid(SIZE))
        torch.testing.assert_close(run(encoding, qkv, Grid(SIZE, cameras=one)), wanted, atol=1e-10, rtol=1e-10)
        seen = cameras(2, 2)
        qkv = qkv_of(Grid(SIZE, cameras=seen))
        both = run(encoding, qkv, Grid(SIZE, cameras=seen))
        for i in range(2):
            its = Cameras(seen.extrinsics[i], seen.intrinsics[i])
            alone = run(encoding, qkv[:, i : i + 1], Grid(SIZE, cameras=its))
            torch.testing.assert_close(both[i : i + 1], alone, atol=1e-12, rtol=1e-12)
        mixed = Grid(SIZE, cameras=Cameras(seen.extrinsics[0], seen.intrinsics[:1].expand(2, 2, 3, 3)))
        same = Grid(SIZE, cameras=Cameras(seen.extrinsics[0], seen.intrinsics[0]))
        torch.testing.assert_close(run(encoding, qkv, mixed), run(encoding, qkv, same))


@torch.no_grad()
def test_some_of_the_tokens() -> None:
    """Patches that are left see each other as before."""
    for name in SPECS:
        grid = Grid(SIZE, 1, cameras=cameras(2, 3))
        qkv = qkv_of(grid)
        index = torch.stack([torch.randperm(18)[:7] for _ in range(2)])
        rows = torch.cat((torch.zeros(2, 1, dtype=torch.long), index + 1), dim=1)
        some = qkv.gather(3, rows[None, :, None, :, None].expand(3, -1, HEADS, -1, HEAD))
        hidden = torch.zeros(2, 19).scatter(1, rows, 1).bool()[:, None, None]

        def masked(v: Tensor, weights: AttentionWeights, hidden: Tensor = hidden) -> Any:
            return attend(weights.q, weights.k, v, mask=hidden), weights

        encoding = make(SPECS[name])
        every = encoded_attention(*qkv, encoding, grid, attended=masked, layer=1)
        wanted = every.gather(2, rows[:, None, :, None].expand(-1, HEADS, -1, HEAD))
        torch.testing.assert_close(run(encoding, some, grid.kept(index)), wanted, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", SPECS)
def test_gradients(name: str) -> None:
    """Of queries, keys, values, cameras and parameters, against differences."""
    encoding = make(SPECS[name])
    grid = Grid(SIZE, 1, cameras=cameras(1, 2))
    poses, lens = rigid(1, 2)[..., :3, :].requires_grad_(), (pinholes(1, 2) / 24)[..., :2, :].requires_grad_()
    qkv = qkv_of(grid, 1).requires_grad_()
    last = torch.tensor([0.0, 0, 0, 1], dtype=torch.float64)
    factors = torch.randn(HEADS, grid.num_tokens, HEAD, dtype=torch.float64)

    def objective(qkv: Tensor, poses: Tensor, lens: Tensor, *parameters: Tensor) -> Tensor:
        whole = torch.cat((poses, last.expand(1, 2, 1, 4)), dim=-2)
        seen = Cameras(whole, torch.cat((lens, last[1:].expand(1, 2, 1, 3)), dim=-2))
        return (run(encoding, qkv, Grid(SIZE, 1, cameras=seen)).tanh() * factors).sum()

    inputs = (qkv, poses, lens, *encoding.parameters())
    assert torch.autograd.gradcheck(objective, inputs, fast_mode=True)
    objective(*inputs).backward()
    assert poses.grad.abs().amax((-1, -2)).min() > 0
    for parameter in encoding.parameters():
        assert parameter.grad[1] != 0


@pytest.mark.parametrize("name", SPECS)
@torch.no_grad()
def test_few_digits(name: str) -> None:
    """Tokens in bfloat16 meet matrices in float32, under autocast too: what leaves is rounded once."""
    encoding = make(SPECS[name]).float()
    grid = Grid(SIZE, 1, cameras=cameras(2, 3, far=30.0).to(torch.float32))
    q, k, v = qkv_of(grid, dtype=torch.bfloat16)
    wide = [
        *encoding.rotate(q.float(), k.float(), grid),
        encoding.value(v.float(), grid),
        encoding.output(v.float(), grid),
    ]
    narrow = [*encoding.rotate(q, k, grid), encoding.value(v, grid), encoding.output(v, grid)]
    with torch.autocast("cpu", torch.bfloat16):
        below = [*encoding.rotate(q, k, grid), encoding.value(v, grid), encoding.output(v, grid)]
    for given, one, two, wanted in zip((q, k, v, v), narrow, below, wide):
        assert one.dtype == two.dtype == torch.bfloat16
        assert torch.equal(one, wanted.bfloat16())
        assert torch.equal(two, one)
        assert torch.equal(one[:, :, :1], given[:, :, :1])  # prefix tokens, to the last bit
    exact = make(SPECS[name])
    for got, wanted in zip(wide, [*exact.rotate(q.double(), k.double(), grid), exact.value(v.double(), grid)]):
        torch.testing.assert_close(got.double(), wanted, atol=1e-3, rtol=1e-4)


class Largest(TorchDispatchMode):
    """The most numbers that any tensor has."""

    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(t, Tensor):
                self.most = max(self.most, t.untyped_storage().nbytes() // t.element_size())
        return out


@pytest.mark.parametrize("name", ["prope", "gta"])
def test_memory_is_linear(name: str) -> None:
    encoding, found = make(SPECS[name]).float(), []
    for side in (8, 16):
        grid = Grid((side, side), cameras=cameras(4).to(torch.float32))
        qkv = qkv_of(grid, 1, torch.float32).requires_grad_()
        with Largest() as seen:
            encoded_attention(*qkv, encoding, grid, attended=lambda v, w: (v + w.q + w.k, w)).sum().backward()
        found.append(seen.most)
    assert found[1] <= 4 * found[0]  # of 4 times the tokens
    assert found[1] < (4 * 16 * 16) ** 2 / 8


def test_refused() -> None:
    for dim, name in ((8, "prope"), (24, "prope"), (12, "gta")):
        with pytest.raises(ValueError, match=f"{name}|head dimension"):
            create_encoding(name, dim=dim, num_heads=2, grid_size=SIZE)
    with pytest.raises(ValueError, match="prope stands on two axes"):
        create_encoding("prope", dim=32, num_heads=2, grid_size=(2, 3, 4))
    for spec in ("prope+rope_axial", "gta+rope_mixed", "rope_axial+gta", "prope+gta"):
        with pytest.raises(ValueError, match="turns queries, keys, values and the output alike"):
            Composition([create_encoding(part, dim=32, num_heads=2, grid_size=SIZE) for part in spec.split("+")])
    for wrapper in ("dropped", "cropped", "randomised"):
        with pytest.raises(ValueError, match="over='prope': what 'prope' does to values it undoes at the output"):
            create_encoding(f"{wrapper}(prope)", dim=32, num_heads=2, grid_size=SIZE)
    with pytest.raises(
        ValueError, match="se3=12 and so2=8 are together 20 channels of the 16 of a head; allowed: 4 to"
    ):
        create_encoding("gta(se3=12, so2=8)", dim=32, num_heads=2, grid_size=SIZE)
    grid = Grid(SIZE, cameras=cameras(3, 2))
    q = torch.randn(2, HEADS, 12, HEAD, dtype=torch.float64)
    with pytest.raises(ValueError, match="cameras of 3 scenes for 2"):
        make("prope").rotate(q, q, grid)
    with pytest.raises(ValueError, match="acts on values, which are 8 channels wide a head here"):
        make("prope").value(q[..., :8], Grid(SIZE, cameras=cameras(2, 2)))
