"""Queries and keys on different grids: what pooled attention is told is what explicit positions would tell."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import randomize
from timm.models.mvitv2 import cal_rel_pos_type
from torch import Tensor

from visionpe import Composition, Grid, attend, create_encoding
from visionpe.attention.pooled import PooledOffsetBias, pooled_index

# Queries and keys; in all of them one grid divides the other along every axis.
WHOLE = [((4, 6), (8, 12)), ((6, 9), (3, 3)), ((8, 2), (2, 8)), ((5, 4), (5, 4))]
UNEVEN = [((29, 4), (57, 7)), ((7, 9), (4, 5))]
FUNCTIONS = ["alibi", "cpb", "dpb", "fire", "kerple", "manhattan"]
TABLES = ["rpb", "attention_bias"]
ROTARY = ["rope_axial", "rope_mixed", "rope_norm"]


def built(spec: str, **options: Any) -> Any:
    return randomize(create_encoding(spec, dim=32, num_heads=2, grid_size=(8, 9), **options), 0)


def middles(size: tuple[int, ...], finer: tuple[int, ...]) -> Tensor:
    """Where tokens stand, in tokens of the finer grid: ``(N, axes)``."""
    axes = [(torch.arange(n) + 0.5) * (m / n) - 0.5 for n, m in zip(size, finer)]
    return torch.cartesian_prod(*axes)


def tokens(count: int, seed: int = 0) -> Tensor:
    return torch.randn(2, 2, count, 16, generator=torch.Generator().manual_seed(seed))


def pair(queries: tuple[int, ...], keys: tuple[int, ...], prefix: int) -> tuple[Grid, Tensor, Tensor]:
    grid = Grid(keys, prefix, queries=queries)
    return grid, tokens(prefix + Grid(queries).num_tokens), tokens(grid.num_tokens, 1)


@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize(("queries", "keys"), WHOLE + UNEVEN)
@pytest.mark.parametrize("name", ROTARY)
@pytest.mark.parametrize("policy", ["extrapolate", "interpolate", "yarn"])
def test_rotary_is_that_of_explicit_coordinates(
    name: str, queries: tuple[int, int], keys: tuple[int, int], prefix: int, policy: str
) -> None:
    encoding = built(name, policy=policy)
    grid, q, k = pair(queries, keys, prefix)
    own = encoding.rotate(q, k, grid)
    for x, size, turned in ((q, queries, own[0]), (k, keys, own[1])):
        where = Grid(grid.finer.size, prefix, coords=middles(size, grid.finer.size))
        torch.testing.assert_close(turned, encoding.rotate(x, x, where)[0], atol=1e-4, rtol=1e-4)


def test_rotary_draws_once_for_queries_and_keys() -> None:
    """Moved coordinates move both: on one grid, given as two, logits are those of a shift, none."""
    encoding = built("rope_axial", shift_coords=3.0).train()
    grid, q, k = pair((4, 6), (4, 6), 0)
    turned_q, turned_k = encoding.rotate(q, k, grid)
    plain_q, plain_k = encoding.eval().rotate(q, k, Grid((4, 6)))
    assert (turned_q - plain_q).abs().max() > 1e-2
    torch.testing.assert_close(turned_q @ turned_k.mT, plain_q @ plain_k.mT, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize(("queries", "keys"), WHOLE)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_the_offset(name: str, queries: tuple[int, int], keys: tuple[int, int], prefix: int) -> None:
    encoding = built(name, policy="interpolate")
    grid, q, k = pair(queries, keys, prefix)
    bias = encoding.bias(q, k, grid)
    finer = grid.finer.size
    both = zip(middles(queries, finer).unbind(-1), middles(keys, finer).unbind(-1))
    offsets = [p[:, None] - r for p, r in both]
    wanted = encoding.function(offsets, grid.finer, 0)
    matrix = bias.matrix(q.dtype)
    torch.testing.assert_close(matrix[0, :, prefix:, prefix:], wanted, atol=1e-5, rtol=1e-5)
    assert not matrix[..., :prefix].any()
    assert not matrix[..., :prefix, :].any()


@pytest.mark.parametrize(("queries", "keys"), UNEVEN)
def test_uneven_grids_are_read_within_a_token(queries: tuple[int, int], keys: tuple[int, int]) -> None:
    encoding = built("alibi")
    grid, q, k = pair(queries, keys, 0)
    finer = grid.finer.size
    distances = torch.cdist(middles(queries, finer), middles(keys, finer))
    steepest = (
        encoding.bias(q, k, grid).matrix(q.dtype)[0, 0] / -encoding.bias(q, q, Grid((1, 2))).matrix(q.dtype)[0, 0, 0, 1]
    )
    assert (steepest.abs() - distances).abs().max() <= 2**0.5


@pytest.mark.parametrize(("queries", "keys"), WHOLE + UNEVEN)
@pytest.mark.parametrize("name", TABLES)
def test_tables_of_whole_offsets(name: str, queries: tuple[int, int], keys: tuple[int, int]) -> None:
    """They are read at the offset of the middles, rounded down."""
    encoding = built(name, init_std=1.0) if name == "rpb" else built(name)
    grid, q, k = pair(queries, keys, 0)
    finer = grid.finer.size
    both = zip(middles(queries, finer).double().unbind(-1), middles(keys, finer).double().unbind(-1))
    offsets = [(p[:, None] - r + 1e-6).floor() for p, r in both]
    wanted = encoding.function(offsets, grid.finer, 0).float()
    torch.testing.assert_close(encoding.bias(q, k, grid).matrix(q.dtype)[0], wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize(("queries", "keys"), WHOLE + UNEVEN)
def test_decomposed_is_that_of_timm(queries: tuple[int, int], keys: tuple[int, int], prefix: int) -> None:
    grid, q, k = pair(queries, keys, prefix)
    encoding = randomize(create_encoding("decomposed", dim=32, num_heads=2, grid_size=grid.finer.size), 0)
    blank = torch.zeros(2, 2, q.shape[2], k.shape[2])
    tables = [table[0].detach() for table in encoding.tables]
    wanted = cal_rel_pos_type(blank, q, bool(prefix), list(queries), list(keys), *tables)
    bias = encoding.bias(q, k, grid)
    torch.testing.assert_close(bias.matrix(q.dtype), wanted, atol=1e-5, rtol=1e-5)
    for kernel in ("auto", "low_rank", "sdpa", "math", "chunked", "small"):
        attended = attend(q, k, k, biases=[bias], kernel=kernel)
        torch.testing.assert_close(attended, (q @ k.mT / 4 + wanted).softmax(-1) @ k, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["alibi", "rpb"])
def test_every_kernel_and_part_of_the_bias(name: str) -> None:
    grid, q, k = pair((6, 9), (3, 3), 1)
    bias = built(name).bias(q, k, grid)
    assert isinstance(bias, PooledOffsetBias)
    whole = bias.matrix(q.dtype)
    for start, stop in ((0, 1), (0, 7), (1, 55), (13, 14), (30, 55)):
        torch.testing.assert_close(bias.rows(start, stop, q.dtype), whole[..., start:stop, :], atol=0, rtol=0)
    torch.testing.assert_close(bias.narrow(slice(0, 1), slice(1, 2)).matrix(q.dtype), whole[:, 1:], atol=0, rtol=0)
    torch.testing.assert_close(bias.scaled(2.0).matrix(q.dtype), 2 * whole)
    wanted = attend(q, k, k, biases=[bias], kernel="math")
    for kernel in ("auto", "sdpa", "chunked", "small"):
        torch.testing.assert_close(attend(q, k, k, biases=[bias], kernel=kernel), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 5), (4, 8), (29, 57), (57, 29), (3, 7)])
def test_index_stays_in_the_table(queries: int, keys: int) -> None:
    index = pooled_index(queries, keys)
    assert index.min() >= 0
    assert index.max() <= 2 * max(queries, keys) - 2
    if queries == keys:
        assert torch.equal(index, torch.arange(keys)[:, None] - torch.arange(keys) + keys - 1)


def test_equal_grids_are_one() -> None:
    """Told as two, they give what one gives: rotation, bias, and what policies do to the logits."""
    for spec in ("alibi+rope_axial", "rpb", "decomposed"):
        encoding = create_encoding(spec, dim=32, num_heads=2, grid_size=(3, 4))
        encoding = randomize(encoding if isinstance(encoding, Composition) else Composition([encoding]), 0)
        encoding.set_policy("temperature+decay(0.5)")
        q, k = tokens(48), tokens(48, 1)
        two, one = Grid((6, 8), queries=(6, 8)), Grid((6, 8))
        for a, b in zip(encoding.rotate(q, k, two), encoding.rotate(q, k, one)):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
        for a, b in zip(encoding.bias(q, k, two), encoding.bias(q, k, one), strict=True):
            torch.testing.assert_close(a.matrix(q.dtype), b.matrix(q.dtype), atol=1e-5, rtol=1e-5)
        rules = [encoding.logit_rule(grid) for grid in (two, one)]
        assert rules[0].factor == rules[1].factor > 1
        assert torch.equal(*(rule.decay.outside(0, 48, q.device) for rule in rules))


def test_logits_of_coarser_keys_follow_the_finer_grid() -> None:
    encoding = Composition([create_encoding("alibi", dim=32, num_heads=2, grid_size=(8, 8))])
    encoding.set_policy("temperature+decay(0.5)")
    assert encoding.logit_rule(Grid((4, 4), queries=(8, 8))) is None
    rule = encoding.logit_rule(Grid((8, 8), queries=(16, 16)))
    wide = encoding.logit_rule(Grid((16, 16)))
    assert rule.factor == wide.factor
    q, k = middles((16, 16), (16, 16)), middles((8, 8), (16, 16))
    outside = ((q[:, None] - k).abs() > 4).any(-1)
    assert torch.equal(rule.decay.outside(0, 256, q.device), outside)


def test_refused() -> None:
    with pytest.raises(ValueError, match="other axes than size"):
        Grid((3, 4), queries=(3,))
    with pytest.raises(ValueError, match="pooled tokens fill a grid"):
        Grid((1, 2), queries=(1, 2), coords=torch.zeros(2, 2))
    with pytest.raises(ValueError, match="is no grid"):
        Grid((1, 2), queries=(0, 2))
