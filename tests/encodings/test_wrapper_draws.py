"""What wrappers draw: how often positions are dropped, and where tokens are moved to."""

from __future__ import annotations

import pytest
import torch
from zoo_checks import make

from visionpe import Grid


@pytest.mark.parametrize("unit", ["image", "token"])
def test_rate(unit: str) -> None:
    """As many positions are dropped as the rate says, whole images or single tokens; prefix tokens never."""
    spec = [{"name": "dropped", "over": name, "rate": 0.3, "unit": unit} for name in ("ape", "rope_axial", "lepe")]
    encoding, grid, n = make(spec).train(), Grid((3, 4), 2), 600
    x, q = torch.randn(n, 12, 16), torch.randn(n, 2, 14, 8)
    kept = [(encoding.add(x, grid) != x).any(-1)]
    for layer in range(2):
        kept.append((encoding.rotate(q, q, grid, layer=layer)[1] != q).any(-1).any(1)[:, 2:])
        mixed = encoding.mix(q, q, grid, layer=layer)
        assert torch.equal(mixed[:, :, :2], q[:, :, :2])
        kept.append((mixed != q).any(-1).any(1)[:, 2:])
    kept[1][:, 0], kept[3][:, 0] = kept[1][:, 1], kept[3][:, 1]  # the origin never turns
    assert torch.equal(kept[2], kept[4])  # all layers see the same draw
    assert torch.equal(kept[1][:, 1:], kept[3][:, 1:])
    for part in kept[::2]:
        assert 0.62 < part.float().mean() < 0.78
        if unit == "image":
            assert torch.equal(part, part[:, :1].expand_as(part))
        else:
            assert 0.32 < (part[:, 0] != part[:, 1]).float().mean() < 0.52  # 2 * 0.3 * 0.7
            assert part.float().mean(0).std() < 0.05
    for rate in (0.0, 1.0):
        always = make({"name": "dropped", "over": "ape", "rate": rate, "unit": unit}).train()
        assert torch.equal(always.add(x, grid), always["ape"].over.add(x, grid) if rate == 0 else x)


@pytest.mark.parametrize("spec", ["dropped(cpe)", "dropped(rope_mixed)", "cropped(rope_mixed)", "randomised(rpb)"])
def test_prefix_tokens(spec: str) -> None:
    encoding, grid = make(spec).train(), Grid((3, 4), 2)
    x, q = torch.randn(4, 14, 16), torch.randn(4, 2, 14, 8)
    encoding.add(x[:, 2:], grid)
    assert torch.equal(encoding.refine(x, grid)[:, :2], x[:, :2])
    assert torch.equal(encoding.rotate(q, q, grid)[0][:, :, :2], q[:, :, :2])
    for bias in encoding.bias(q, q, grid):
        matrix = bias.matrix(torch.float32)
        assert not matrix[:, :, :2].any()
        assert not matrix[..., :2].any()


def test_dropped_tokens_of_a_sparse_grid() -> None:
    """Patches dropped after `add` leave each remaining token the draw that it had."""
    encoding = make({"name": "dropped", "over": "rope_axial", "unit": "token"}).train()
    full = Grid((3, 4))
    encoding.add(torch.zeros(2, 12, 16), full)
    index = torch.tensor([[11, 2, 7], [4, 5, 1]])
    part = encoding.parts[0]
    drawn = part.drawn(torch.zeros(2, 12, 16), full)
    some = part.drawn(torch.zeros(2, 3, 16), Grid((3, 4), coords=full.positions()[index]))
    assert torch.equal(some, drawn.gather(1, index))


def test_cropped_places() -> None:
    """Tokens spread evenly over a box of the larger grid, whose area and aspect stay in their ranges."""
    spec = {"name": "cropped", "over": "sincos", "enlarge": 2.5, "scale": (0.2, 0.6), "aspect": (0.8, 1.5)}
    part = make(spec).parts[0].train()
    moved = part.ready(part.draw(Grid((4, 6)), 2000, torch.device("cpu")), Grid((4, 6), 1))
    assert (moved.size, moved.prefix) == ((10, 15), 1)
    places = moved.coords.unflatten(1, (4, 6))  # (B, 4, 6, axes)
    step = torch.stack((places[:, 1, 0, 0] - places[:, 0, 0, 0], places[:, 0, 1, 1] - places[:, 0, 0, 1]), dim=-1)
    grid = Grid((4, 6)).positions().unflatten(0, (4, 6))
    torch.testing.assert_close(places, places[:, :1, :1] + grid * step[:, None, None], atol=1e-4, rtol=1e-4)
    length = step * torch.tensor([4, 6])  # of the box, in tokens
    start = places[:, 0, 0] + 0.5 - step / 2
    assert start.min() > -1e-4
    assert (start + length - torch.tensor([10, 15])).max() < 1e-4
    for value, low, high in ((length.prod(-1) / 150, 0.2, 0.6), (length[:, 1] / 15 / (length[:, 0] / 10), 0.8, 1.5)):
        assert low - 1e-3 < value.min() < low + 0.05
        assert high - 0.05 < value.max() < high + 1e-3
    assert 0.38 < (length.prod(-1) / 150).mean() < 0.42  # areas are drawn evenly
    default = make("cropped(sincos)", grid_size=(14, 14)).parts[0]
    area = default.draw(Grid((14, 14)), 2000, torch.device("cpu"))[:, 1].prod(-1)
    assert default.ready(default.draw(Grid((14, 14)), 1, torch.device("cpu")), Grid((14, 14))).size == (64, 64)
    assert 0.1 <= area.min() < 0.12
    assert 0.98 < area.max() <= 1 + 1e-6


def test_cropped_table() -> None:
    """The whole of the enlarged grid, at its own places, is the resized table itself; halfway between is the mean."""
    encoding = make("ape", grid_size=(4, 6))
    table = encoding["ape"].resized((8, 9)).flatten(0, 1)
    whole, x = Grid((8, 9)).positions(), torch.zeros(1, 72, 16)
    order = torch.randperm(72)
    some = encoding.add(x, Grid((8, 9), coords=whole[order]))
    assert torch.equal(some[0], table[order])
    half = encoding.add(x[:, :1], Grid((8, 9), coords=torch.tensor([[2.25, 3.5]])))
    grid = table.unflatten(0, (8, 9))
    wanted = 0.375 * (grid[2, 3] + grid[2, 4]) + 0.125 * (grid[3, 3] + grid[3, 4])
    torch.testing.assert_close(half[0, 0], wanted)
    out = encoding.add(x[:, :2], Grid((8, 9), coords=torch.tensor([[-0.4, 8.4], [7.3, -0.2]])))
    torch.testing.assert_close(out[0], torch.stack((grid[0, 8], grid[7, 0])))


def test_randomised_places() -> None:
    part = make({"name": "randomised", "over": "sincos", "range": (5, 9)}).parts[0].train()
    drawn = part.draw(Grid((4, 7)), 400, torch.device("cpu"))
    moved = part.ready(drawn, Grid((4, 7), 1))
    assert (moved.size, moved.prefix) == ((5, 9), 1)
    places = moved.coords.unflatten(1, (4, 7))
    rows, columns = places[:, :, 0, 0], places[:, 0, :, 1]
    assert torch.equal(places, torch.stack((rows[:, :, None].expand(-1, 4, 7), columns[:, None].expand(-1, 4, 7)), -1))
    for axis, size in ((rows, 5), (columns, 9)):
        assert (axis.diff(dim=1) >= 1).all()
        assert torch.equal(axis, axis.round())
        counts = torch.bincount(axis.flatten().long(), minlength=size) / 400
        assert len(counts) == size
        torch.testing.assert_close(counts, torch.full((size,), axis.shape[1] / size), atol=0.1, rtol=0)
    assert make("randomised(sincos)").parts[0].range == (8, 8)
    with pytest.raises(ValueError, match=r"range=\(5, 9\) has too few places for a grid of \(6, 7\) tokens"):
        part.add(torch.zeros(1, 42, 16), Grid((6, 7)))
    assert part.eval().add(torch.zeros(1, 42, 16), Grid((6, 7))).shape == (1, 42, 16)


def test_samples_differ() -> None:
    for spec in ("cropped(ape)", "randomised(ape)", "dropped(ape)"):
        out = make(spec).train().add(torch.zeros(8, 16, 16), Grid((4, 4)))
        assert (out - out[:1]).abs().amax((1, 2)).gt(1e-3).any()
