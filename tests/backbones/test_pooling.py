"""Pooling of maps of any size, and which queries and keys of padded windows see each other."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from visionpe.backbones.shared.pooling import pool_map
from visionpe.backbones.shared.windows import WholeMap, Windows


@pytest.mark.parametrize("size", [(4, 6), (5, 6), (5, 7), (1, 1)])
@pytest.mark.parametrize("stride", [(2, 2), (1, 3), (1, 1)])
def test_pool_map(size: tuple[int, int], stride: tuple[int, int]) -> None:
    x = torch.randn(2, *size, 3)
    channels_first = x.permute(0, 3, 1, 2)
    largest = F.max_pool2d(channels_first, stride, stride, ceil_mode=True)
    torch.testing.assert_close(pool_map(x, stride), largest.permute(0, 2, 3, 1), atol=0, rtol=0)
    mean = F.avg_pool2d(channels_first, stride, stride, ceil_mode=True)
    torch.testing.assert_close(pool_map(x, stride, "mean"), mean.permute(0, 2, 3, 1))


def test_windows_of_queries_are_those_of_keys() -> None:
    """A pooled token lies in the window that its cell is cut into."""
    windows = Windows((13, 10), (4, 4))
    queries = windows.pooled((2, 2))
    assert (queries.size, queries.window, queries.counts) == ((7, 5), (2, 2), windows.counts)
    number = torch.arange(1.0, windows.number + 1).view(-1, 1, 1)
    of_keys = windows.join(number.expand(-1, windows.tokens, 1))
    of_queries = queries.join(number.expand(-1, queries.tokens, 1))
    assert torch.equal(pool_map(of_keys, (2, 2)), of_queries[None][0])
    assert WholeMap((5, 4), (5, 4)).pooled((2, 2)).size == (3, 2)


def test_queries_see_the_map_alone() -> None:
    windows = Windows((5, 10), (4, 4))
    queries = windows.pooled((2, 2))
    mask = windows.pooled_additive(queries)
    assert mask.shape == (6, 1, 4, 16)
    sees = mask[:, 0] == 0
    assert sees.any(-1).all()  # no row is empty, in padding either
    for window, (inside, keys) in enumerate(zip(queries.inside(), windows.inside())):
        assert torch.equal(sees[window][inside], keys.expand(int(inside.sum()), -1))
