"""Neighbours, pooling, convolution and windows of voxels, each against its plain form."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from test_cells import cloud

from visionpe.sparse import Neighbourhood, SparseConv, SparseWindows, coarsen, nearest
from visionpe.sparse import neighbours as module


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [1, 3, 16])
@pytest.mark.parametrize("cell", [0.3, 1.0, 20.0])
def test_nearest(dtype: torch.dtype, k: int, cell: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUDGET", 5000)
    points, queries = torch.randn(300, 3, dtype=dtype) * 2 + 100, torch.randn(90, 3, dtype=dtype) * 3 + 100
    batch, query_batch = torch.arange(300) // 100, torch.arange(90) // 30
    rows, distances = nearest(points, batch, queries, query_batch, k, cell=cell)
    wanted = (points - queries[:, None]).square().sum(-1)
    wanted = wanted.masked_fill(batch != query_batch[:, None], torch.inf).sqrt()
    torch.testing.assert_close(distances, wanted.sort(dim=1).values[:, :k], atol=0, rtol=1e-5)
    assert (batch[rows] == query_batch[:, None]).all()
    torch.testing.assert_close(distances, (points[rows] - queries[:, None]).norm(dim=-1))


def test_nearest_of_equals_and_of_few() -> None:
    points = torch.tensor([[0.0, 1], [1, 0], [0, -1], [-1, 0], [5, 5]])
    batch, zero = torch.zeros(5, dtype=torch.long), torch.zeros(1, dtype=torch.long)
    for dtype in (torch.float32, torch.float64):
        rows, _ = nearest(points.to(dtype), batch, torch.zeros(1, 2, dtype=dtype), zero, 3, cell=1.0)
        assert rows.tolist() == [[0, 1, 2]]  # the lowest rows
        rows, distances = nearest(points[3:].to(dtype), batch[3:], torch.zeros(1, 2, dtype=dtype), zero, 4, cell=1.0)
        assert rows.tolist() == [[0, 1, 0, 0]]
        assert distances.isinf().tolist() == [[False, False, True, True]]
    with pytest.raises(ValueError, match="cloud 1"):
        nearest(points, batch, points, batch + 1, 1, cell=1.0)
    with pytest.raises(ValueError, match="k=0"):
        nearest(points, batch, points, batch, 0, cell=1.0)


def test_coarsen() -> None:
    coords = cloud(200)
    signals = torch.cat((coords.float(), torch.randn(len(coords), 3)), dim=1)
    coarse, kept, rows = coarsen(coords, signals, 3)
    cells = [tuple(c) for c in torch.cat((coords[:, :1], coords[:, 1:].div(3, rounding_mode="floor") * 3), 1).tolist()]
    assert [tuple(c) for c in coarse.tolist()] == list(dict.fromkeys(cells))
    for cell, row, signal in zip(coarse.tolist(), rows.tolist(), kept):
        children = [n for n, each in enumerate(cells) if each == tuple(cell)]
        distances = (signals[children] - signals[children].mean(0)).norm(dim=1)
        assert row in children
        assert torch.equal(signal, signals[row])
        assert distances[children.index(row)] <= distances.min() * 1.0001 + 1e-5
        if len(children) == 2:
            assert row == min(children)


def test_convolution_is_the_dense_one() -> None:
    coords = cloud(80)
    conv = SparseConv(3, 5).double()
    x = torch.randn(len(coords), 3, dtype=torch.float64, requires_grad=True)
    at = (coords[:, 0], *(coords[:, 1:] + 5).T.unbind())
    dense = x.new_zeros(2, 11, 11, 11, 3).index_put(at, x).movedim(-1, 1)  # (clouds, channels, x, y, z)
    weight = conv.kernel.view(3, 3, 3, 3, 5).permute(4, 3, 2, 1, 0)  # z, y, x as stored
    wanted = F.conv3d(dense, weight, padding=1).movedim(1, -1)[at]
    torch.testing.assert_close(conv(x, Neighbourhood(coords)), wanted)
    strided = coords.clone()
    strided[:, 1:] *= 4
    torch.testing.assert_close(conv(x, Neighbourhood(strided, stride=4)), wanted)
    inner = Neighbourhood(coords[:12])
    leaves = (x[:12].detach().requires_grad_(), conv.kernel)
    assert torch.autograd.gradcheck(
        lambda x, kernel: torch.func.functional_call(conv, {"kernel": kernel}, (x, inner)), leaves, fast_mode=True
    )


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("window", "stride"), [(5, 1), (4, 1), (3, 2)])
def test_windows(shifted: bool, window: int, stride: int) -> None:
    coords = cloud(300)
    coords[:, 1:] *= stride
    positions = coords[:, 1:] + torch.rand(len(coords), 3) * stride
    plan = SparseWindows(coords, positions, window=window, stride=stride, shifted=shifted)
    shift = window // 2 if shifted else 0
    wanted: dict = {}
    for row, (b, *c) in enumerate(coords.tolist()):
        wanted.setdefault((b, *((n // stride + shift) // window for n in c)), set()).add(row)
    found = []
    for bucket in plan.buckets:
        found += [frozenset(rows[mask].tolist()) for rows, mask in zip(bucket.rows, bucket.mask)]
        inside = bucket.places[bucket.mask]
        assert (inside >= 0).all()
        assert (inside <= window).all()
        difference = bucket.places[:, :, None] - bucket.places[:, None]
        true = (positions[bucket.rows][:, :, None] - positions[bucket.rows][:, None]) / stride
        torch.testing.assert_close(difference, true, atol=1e-5, rtol=1e-5)
    assert sorted(map(sorted, found)) == sorted(map(sorted, wanted.values()))


def test_padding_costs_little() -> None:
    """Windows of many sizes: few buckets where there is little to do, little padding where there is much."""
    generator = torch.Generator().manual_seed(0)
    for side, buckets, padding in ((12, 8, 2.0), (60, 40, 1.12)):
        cells = torch.unique((torch.rand(6 * side**2, 3, generator=generator) ** 2 * side).long(), dim=0)
        coords = torch.cat((torch.zeros(len(cells), 1, dtype=torch.long), cells), dim=1)
        plan = SparseWindows(coords, coords[:, 1:].double(), window=5).buckets
        real = sum(int(bucket.mask.sum(1).square().sum()) for bucket in plan)
        assert len(plan) <= buckets
        assert sum(bucket.rows.numel() * bucket.rows.shape[1] for bucket in plan) <= padding * real
        assert torch.equal(torch.cat([b.rows[b.mask] for b in plan]).sort().values, torch.arange(len(coords)))
