"""All kernels agree, in value and gradient."""

from __future__ import annotations

import pytest
import torch

import visionpe.attention.dispatch
import visionpe.attention.kernels
from visionpe import BucketBias, DenseBias, Grid, LowRankBias, OffsetBias, attend, create_encoding
from visionpe.attention import flex
from visionpe.attention.dispatch import AttentionWeights


def case(prefix: int = 1, dtype: torch.dtype = torch.float32) -> tuple[list[torch.Tensor], list, torch.Tensor]:
    grid = Grid((4, 6), prefix)
    n = grid.num_tokens
    qkv = [torch.randn(2, 3, n, 8, dtype=dtype, requires_grad=True) for _ in range(3)]
    table = torch.randn(3, 7, 11, dtype=dtype, requires_grad=True)
    dense = torch.randn(1, 1, n, n, dtype=dtype, requires_grad=True)
    return [*qkv, table, dense], [OffsetBias(table, grid), DenseBias(dense)], torch.rand(n, n) > 0.3


@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize("masked", ["no", "bool", "float"])
def test_kernels_agree(prefix: int, masked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visionpe.attention.kernels, "CHUNK_BYTES", 3 * 30 * 4 * 7)  # about seven rows at a time
    leaves, biases, mask = case(prefix)
    mask = mask | torch.eye(len(mask), dtype=torch.bool)  # no row is empty
    given = {"no": None, "bool": mask, "float": torch.zeros(mask.shape).masked_fill(~mask, -1e4)}[masked]
    q, k, v = leaves[:3]
    logits = q @ k.transpose(-2, -1) * 8**-0.5 + biases[0].matrix(q.dtype) + biases[1].values
    if masked != "no":
        logits = logits.masked_fill(~mask, float("-inf"))
    results = {"formula": [logits.softmax(-1) @ v]}
    results["formula"] += torch.autograd.grad(results["formula"][0].square().sum(), leaves)
    for kernel in ("math", "small", "sdpa", "chunked"):
        out = attend(*leaves[:3], biases=biases, mask=given, kernel=kernel)
        grads = torch.autograd.grad(out.square().sum(), leaves)
        results[kernel] = [out, *grads]
    for kernel in ("math", "small", "sdpa", "chunked"):
        for a, b in zip(results[kernel], results["formula"]):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kernel", ["math", "small", "sdpa", "chunked", "auto"])
def test_without_bias(kernel: str) -> None:
    (q, k, v, *_), _, _ = case()
    logits = q @ k.transpose(-2, -1) * 8**-0.5
    torch.testing.assert_close(attend(q, k, v, kernel=kernel), logits.softmax(-1) @ v, atol=1e-5, rtol=1e-5)
    halved = attend(q, k, v, scale=0.5, kernel=kernel)
    torch.testing.assert_close(halved, (q @ k.transpose(-2, -1) * 0.5).softmax(-1) @ v, atol=1e-5, rtol=1e-5)


def test_offset_bias_by_hand() -> None:
    (_, _, _, table, _), (bias, _), _ = case(prefix=2)
    matrix = bias.matrix(torch.float32)[0]
    for i in range(24):
        for j in range(24):
            dy, dx = i // 6 - j // 6, i % 6 - j % 6
            assert torch.equal(matrix[:, i + 2, j + 2], table[:, dy + 3, dx + 5])
    assert not matrix[:, :2].any()
    assert not matrix[:, :, :2].any()
    torch.testing.assert_close(bias.rows(1, 9, torch.float32)[0], matrix[:, 1:9])


def structured() -> tuple[list[torch.Tensor], list]:
    """One bias of every structure, with the leaves that they are made of."""
    grid = Grid((4, 5), 1)
    n = grid.num_tokens
    shapes = [(2, 3, n, 8)] * 3 + [(3, 7, 9), (2, 3, n, 4), (1, 1, n, 4), (2, 3, n, 6), (2, 3, n, 6)]
    leaves = [torch.randn(shape, requires_grad=True) for shape in shapes]
    _, _, _, table, left, right, of_queries, of_keys = leaves
    buckets = torch.randint(6, (n, n))
    biases = [
        OffsetBias(table, grid),
        LowRankBias(left, right),
        BucketBias(of_queries, lambda a, b: buckets[a:b]),
        BucketBias(of_keys, lambda a, b: buckets.T[a:b], keys=True),
    ]
    wanted = biases[0].matrix(torch.float32) + left @ right.transpose(-2, -1)
    rows, columns = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    wanted = wanted + of_queries[:, :, rows, buckets] + of_keys[:, :, columns, buckets.T]
    return [*leaves, wanted], biases


@pytest.mark.parametrize("kernel", ["auto", "sdpa", "low_rank", "chunked", "small", "math"])
@pytest.mark.parametrize("large", [False, True])
def test_every_structure_in_every_kernel(kernel: str, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if large:
        monkeypatch.setattr(visionpe.attention.kernels, "MATRIX_BYTES", 0)
        monkeypatch.setattr(visionpe.attention.kernels, "CHUNK_BYTES", 2 * 3 * 21 * 4 * 5)
    (*leaves, matrix), biases = structured()
    q, k, v = leaves[:3]
    wanted = (q @ k.transpose(-2, -1) * 8**-0.5 + matrix).softmax(-1) @ v
    got = attend(q, k, v, biases=biases, kernel=kernel)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
    grads = [torch.autograd.grad(out.square().sum(), leaves, retain_graph=True) for out in (got, wanted)]
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_low_rank_builds_no_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LowRankBias, "rows", lambda *_: pytest.fail("built"))
    monkeypatch.setattr(LowRankBias, "matrix", lambda *_: pytest.fail("built"))
    q = torch.randn(1, 2, 30, 8)
    attend(q, q, q, biases=[LowRankBias(torch.randn(1, 2, 30, 4), torch.randn(1, 1, 30, 4))])


def test_weights_by_rows() -> None:
    (*leaves, matrix), biases = structured()
    q, k, _ = leaves[:3]
    mask = torch.rand(21, 21) > 0.2
    mask.fill_diagonal_(True)
    weights = AttentionWeights(q, k, biases, mask)
    wanted = (q @ k.transpose(-2, -1) * 8**-0.5 + matrix).masked_fill(~mask, float("-inf")).softmax(-1)
    got = torch.cat([weights.rows(a, b) for a, b in ((0, 4), (4, 21))], dim=-2)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
    assert weights.chunks() == [(0, 21)]


def test_large_bias_goes_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    leaves, biases, _ = case()
    seen = []
    original = visionpe.attention.bias.offset_rows
    monkeypatch.setattr(
        visionpe.attention.bias, "offset_rows", lambda t, n, a, b: seen.append(b - a) or original(t, n, a, b)
    )
    wanted = attend(*leaves[:3], biases=biases)
    assert seen == [24]  # one token is a prefix
    monkeypatch.setattr(visionpe.attention.kernels, "MATRIX_BYTES", 1000)
    monkeypatch.setattr(visionpe.attention.kernels, "CHUNK_BYTES", 25 * 4 * 10)
    with torch.no_grad():
        torch.testing.assert_close(attend(*leaves[:3], biases=biases), wanted, atol=1e-6, rtol=1e-6)
    assert seen[1:] == [9] * 3 + [10] * 3 + [5] * 3  # three heads one by one
    seen.clear()
    monkeypatch.setattr(visionpe.attention.kernels, "CHUNK_BYTES", 25 * 4 * 10 * 3)
    out = attend(*leaves[:3], biases=biases)
    out.sum().backward()  # computed again there, not kept
    assert seen == [24] * 6  # three heads, and once more for the gradient


def test_linear_memory_of_alibi() -> None:
    """At 64 x 64 tokens and 12 heads the matrix would take 805 MB; the largest tensor stays far below."""
    encoding = create_encoding("alibi", dim=48, num_heads=12, grid_size=(14, 14))
    q = torch.randn(1, 12, 4096, 4)
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                self.numel = max(self.numel, out.numel())
            return out

    with Largest() as largest, torch.no_grad():
        attend(q, q, q, biases=[encoding.bias(q, q, Grid((64, 64)))])
    assert largest.numel < 12 * 4096 * 4096 / 10


def test_dropout_and_unknown_kernel() -> None:
    (q, k, v, *_), biases, _ = case()
    for kernel in ("math", "small", "sdpa", "chunked"):
        dropped = attend(q, k, v, biases=biases, dropout_p=0.9, kernel=kernel)
        assert (dropped - attend(q, k, v, biases=biases)).abs().max() > 0.1
    with pytest.raises(
        ValueError, match="kernel='flash' is unknown; allowed: auto, sdpa, low_rank, flex, chunked, small, math"
    ):
        attend(q, k, v, kernel="flash")


def test_bfloat16() -> None:
    leaves, biases, _ = case()
    wide = attend(*leaves[:3], biases=biases)
    narrow = attend(*(t.bfloat16() for t in leaves[:3]), biases=biases)
    assert narrow.dtype == torch.bfloat16
    assert (narrow.float() - wide).norm() / wide.norm() < 0.01


@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("size", [(3, 5), (2, 3, 2), (4,)])
def test_flex_reads_the_table(size: tuple[int, ...], prefix: int) -> None:
    """What FlexAttention adds to a logit is the entry of the matrix, and its gradient reaches the table."""
    grid = Grid(size, prefix)
    n = grid.num_tokens
    tables = [torch.randn(heads, *(2 * m - 1 for m in size), requires_grad=True) for heads in (2, 1)]
    biases = [OffsetBias(table, grid) for table in tables]
    modify = flex.score_mod(biases)
    head, query, key = torch.meshgrid(torch.arange(2), torch.arange(n), torch.arange(n), indexing="ij")
    score = torch.randn(2, n, n)
    got = modify(score, torch.zeros_like(head), head, query, key)
    wanted = score + biases[0].matrix(score.dtype)[0] + biases[1].matrix(score.dtype)[0]
    torch.testing.assert_close(got, wanted)
    weight = torch.randn(2, n, n)
    grads = [torch.autograd.grad((out * weight).sum(), tables) for out in (got, wanted)]
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b)


def test_flex_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex, "compiled", lambda _: flex.flex_attention)  # eager: the compiler takes half a minute
    leaves, biases, mask = case()
    (q, k, v), offset = (t.detach() for t in leaves[:3]), biases[:1]
    q, k, v = (torch.nn.functional.pad(t, (0, 8)) for t in (q, k, v))  # no head dimension below 16
    with torch.no_grad():
        wanted = attend(q, k, v, biases=offset, scale=0.3, kernel="math")
        torch.testing.assert_close(attend(q, k, v, biases=offset, scale=0.3, kernel="flex"), wanted)
        with pytest.raises(ValueError, match="kernel='flex' with offset, dense: it takes biases on the offset alone"):
            attend(q, k, v, biases=biases, kernel="flex")
        with pytest.raises(ValueError, match=r"kernel='flex' takes no mask and no dropout, got dropout_p=0\.1"):
            attend(q, k, v, biases=offset, dropout_p=0.1, kernel="flex")
        with pytest.raises(ValueError, match="kernel='flex' takes no mask"):
            attend(q, k, v, biases=offset, mask=mask, kernel="flex")
    with pytest.raises(ValueError, match="kernel='flex' has no gradients on a CPU"):
        attend(*leaves[:3], biases=offset, kernel="flex")
