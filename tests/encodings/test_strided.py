"""Attention in which every second key is a query: encodings tell it what they tell these queries among all tokens."""

from __future__ import annotations

import pytest
import torch
from conftest import ENCODINGS
from small_encodings import logits, make, qk

from visionpe import Grid
from visionpe.attention.logits import Decay
from visionpe.attention.pooled import pooled_index

SIZES = [((6, 6), (2, 2)), ((7, 5), (2, 2)), ((4, 9), (3, 2)), ((2, 1), (2, 2)), ((5, 3), (1, 3))]


def chosen(size: tuple[int, ...], stride: tuple[int, ...], prefix: int = 0) -> torch.Tensor:
    """Which tokens are queries: prefix tokens, and the first and every ``stride``-th along each axis."""
    tokens = torch.arange(size[0] * size[1]).view(size)[:: stride[0], :: stride[1]].flatten()
    return torch.cat((torch.arange(prefix), tokens + prefix))


@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize("spec", ENCODINGS)
@torch.no_grad()
def test_logits_are_rows_of_those_of_all_tokens(spec: str, prefix: int) -> None:
    encoding = make(spec)
    if not all(part.takes_pooled for part in encoding.parts) or not set(encoding.parts[0].sites()) & {"rotate", "bias"}:
        pytest.skip("not told where attention pools")
    for size, stride in SIZES:
        rows = chosen(size, stride, prefix)
        q, k = qk(size[0] * size[1] + prefix)
        every = logits(encoding, q, k, Grid(size, prefix))
        grid = Grid(size, prefix, stride=stride)
        got = logits(encoding, q[:, :, rows], k, grid)
        torch.testing.assert_close(got, every[:, :, rows], atol=2e-5, rtol=2e-5)
        for bias in encoding.bias(q[:, :, rows], k, grid, layer=1):
            matrix = bias.matrix(q.dtype)
            parts = [bias.rows(i, min(i + 2, len(rows)), q.dtype) for i in range(0, len(rows), 2)]
            torch.testing.assert_close(torch.cat(parts, dim=-2), matrix)


def test_where_queries_stand() -> None:
    for size, stride in SIZES:
        grid = Grid(size, stride=stride)
        queries, keys = grid.query_and_key_positions()
        assert torch.equal(keys, Grid(size).positions())
        assert torch.equal(queries, keys[chosen(size, stride)])
        assert grid.finer.size == size
        assert len(queries) == grid.queries[0] * grid.queries[1]
    # Stretched queries of an odd side stand elsewhere.
    assert not torch.equal(pooled_index(4, 7, stride=2), pooled_index(4, 7))


def test_decay_counts_from_the_queries() -> None:
    size, stride = (7, 5), (2, 2)
    rows = chosen(size, stride)
    every = Decay(Grid(size), (2.0, 1.0), 0.5).outside(0, 35, torch.device("cpu"))
    got = Decay(Grid(size, stride=stride), (2.0, 1.0), 0.5).outside(0, len(rows), torch.device("cpu"))
    assert torch.equal(got, every[rows])


def test_strides_that_are_none() -> None:
    for stride in ((2,), (0, 2), (2, 1.5), (2, 2, 2)):
        with pytest.raises(ValueError, match="is none; allowed: 2 positive whole numbers"):
            Grid((6, 6), stride=stride)
    with pytest.raises(ValueError, match=r"stride=\(2, 2\) with queries: .*allowed: one of the two"):
        Grid((6, 6), stride=(2, 2), queries=(3, 3))
    with pytest.raises(ValueError, match=r"stride=\(2, 2\) with coords: .*allowed: one of the two"):
        Grid((6, 6), stride=(2, 2), coords=torch.zeros(3, 2))
