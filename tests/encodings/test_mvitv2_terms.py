"""Decomposed terms of pooled queries and keys against timm's MViTv2 and the published one."""

from __future__ import annotations

from math import floor

import pytest
import torch
import torch.nn.functional as F
from conftest import randomize
from timm.models.mvitv2 import MultiScaleAttention, cal_rel_pos_type
from torch import Tensor
from zoo_checks import close, read

from visionpe import Grid, LowRankBias, attend, create_encoding
from visionpe.encodings.bias.axes import decomposed_terms, offset_index

# Queries, keys: the same, keys pooled, queries pooled, both, and sides that the stride does not divide.
SIZES = [
    ((4, 7), (4, 7)),
    ((6, 10), (3, 5)),
    ((4, 6), (8, 12)),
    ((12, 4), (3, 2)),
    ((7, 9), (4, 5)),
    ((3, 8), (6, 2)),
]


def places(size: tuple[int, ...], prefix: int = 0) -> Tensor:
    """In which row and column each key stands: ``(1, 1, N, rows + columns)``."""
    hot = [F.one_hot(p, n) for p, n in zip(Grid(size).positions(dtype=torch.long).unbind(-1), size)]
    return F.pad(torch.cat(hot, -1).float(), (0, 0, prefix, 0))[None, None]


def bias_of(q: Tensor, tables: list[Tensor], queries: tuple, keys: tuple, prefix: int = 0) -> LowRankBias:
    terms = decomposed_terms(q[:, :, prefix:], tables, queries, keys)
    return LowRankBias(F.pad(torch.cat(terms, -1), (0, 0, prefix, 0)), places(keys, prefix).to(q.dtype))


def tables_for(queries: tuple, keys: tuple, dim: int = 16) -> list[Tensor]:
    return [torch.randn(2 * max(n, m) - 1, dim) for n, m in zip(queries, keys)]


@pytest.mark.parametrize(("queries", "keys"), SIZES)
@pytest.mark.parametrize("prefix", [0, 1])
def test_against_timm(queries: tuple[int, int], keys: tuple[int, int], prefix: int) -> None:
    tables, n = tables_for(queries, keys), prefix + queries[0] * queries[1]
    q = torch.randn(2, 3, n, 16)
    blank = torch.zeros(2, 3, n, prefix + keys[0] * keys[1])
    wanted = cal_rel_pos_type(blank.clone(), q, bool(prefix), list(queries), list(keys), *tables)
    bias = bias_of(q, tables, queries, keys, prefix)
    close(bias.matrix(q.dtype), wanted)
    k, v = torch.randn(2, 2, 3, blank.shape[-1], 16).unbind()
    for kernel in ("auto", "low_rank", "sdpa"):
        attended = attend(q, k, v, biases=[bias], kernel=kernel)
        close(attended, (q @ k.mT / 4 + wanted).softmax(-1) @ v)


@pytest.mark.parametrize("queries", [1, 2, 5, 8, 57])
@pytest.mark.parametrize("keys", [1, 2, 3, 8, 29])
def test_index(queries: int, keys: int) -> None:
    """The published formula, in exact fractions; every table is used up to its ends, and no farther."""
    from fractions import Fraction

    finer = max(queries, keys)
    up, down = Fraction(finer, queries), Fraction(finer, keys)
    wanted = [[floor(i * up - j * down + (keys - 1) * down) for j in range(keys)] for i in range(queries)]
    got = offset_index(queries, keys)
    assert got.tolist() == wanted
    assert got.min() == 0
    assert got.max() <= 2 * finer - 2


def test_equal_sizes_are_the_encoding() -> None:
    encoding, grid = randomize(create_encoding("decomposed", dim=32, num_heads=2, grid_size=(4, 7))), Grid((4, 7), 1)
    q = torch.randn(2, 2, 29, 16)
    tables = [table[0] for table in encoding.tables]
    wanted = encoding.bias(q, q, grid).matrix(q.dtype)
    close(bias_of(q, tables, grid.size, grid.size, 1).matrix(q.dtype), wanted)


@pytest.mark.parametrize("sizes", [((3, 4), (3, 4)), ((4, 6), (2, 3)), ((2, 5), (4, 2))])
def test_gradients(sizes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    queries, keys = sizes
    leaves = [torch.randn(1, 2, queries[0] * queries[1], 4), *tables_for(queries, keys, 4)]
    leaves = [t.double().requires_grad_() for t in leaves]

    def run(q: Tensor, *tables: Tensor) -> tuple[Tensor, ...]:
        return tuple(decomposed_terms(q, list(tables), queries, keys))

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


def attention(x: Tensor, size: tuple[int, int], module: torch.nn.Module) -> tuple[Tensor, tuple[int, int]]:
    """timm's pooled attention, written with our terms: tokens ``(B, N, dim)``, no class token."""

    def pooled(t: Tensor, name: str) -> tuple[Tensor, tuple[int, int]]:
        maps = getattr(module, f"pool_{name}")(t.flatten(0, 1).transpose(1, 2).unflatten(2, size))
        tokens = maps.flatten(2).transpose(1, 2).unflatten(0, t.shape[:2])
        return getattr(module, f"norm_{name}")(tokens), tuple(maps.shape[2:])

    q, k, v = module.qkv(x).unflatten(-1, (3, module.num_heads, -1)).permute(2, 0, 3, 1, 4)
    (q, queries), (k, keys), (v, _) = (pooled(t, name) for t, name in ((q, "q"), (k, "k"), (v, "v")))
    attended = attend(q, k, v, biases=[bias_of(q, [module.rel_pos_h, module.rel_pos_w], queries, keys)]) + q
    return module.proj(attended.transpose(1, 2).flatten(2)), queries


@pytest.mark.parametrize(("stride_q", "stride_kv"), [(1, 1), (1, 2), (2, 1), (2, 4)])
def test_attention_of_timm(stride_q: int, stride_kv: int) -> None:
    """A whole attention layer of MViTv2 at its own size and at a smaller, non-square one, where the index is equal."""
    options = dict(feat_size=(8, 8), num_heads=2, kernel_q=(3, 3), kernel_kv=(3, 3), has_cls_token=False)
    strides = dict(stride_q=(stride_q,) * 2, stride_kv=(stride_kv,) * 2)
    theirs = randomize(MultiScaleAttention(32, 32, **options, **strides))
    with torch.no_grad():
        theirs.rel_pos_h.normal_()
        theirs.rel_pos_w.normal_()
        for size in ((8, 8), (4, 8)):
            x = torch.randn(2, size[0] * size[1], 32)
            (got, grid), (wanted, wanted_grid) = attention(x, size, theirs), theirs(x, list(size))
            assert grid == tuple(wanted_grid)
            close(got, wanted)


def test_published_model() -> None:
    """The whole tiny MViTv2 by hand: its attention is timm's layer above, and its pooling is around it."""
    state, inputs, outputs, metadata = read("mvitv2")
    official = metadata["kwargs"]["MVIT"]

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    x = F.conv2d(inputs["native"], state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], 4, 3)
    size, x = tuple(x.shape[2:]), x.flatten(2).transpose(1, 2)
    heads, stride_kv = 1, official["POOL_KV_STRIDE_ADAPTIVE"][0]
    for index in range(official["DEPTH"]):
        name, stride_q = f"blocks.{index}", official["POOL_Q_STRIDE"][index][1]
        heads *= 2 if index in (1, 3) else 1
        stride_kv = max(stride_kv // stride_q, 1)
        own = {k.removeprefix(f"{name}.attn."): v for k, v in state.items() if k.startswith(f"{name}.attn.")}
        module = MultiScaleAttention(
            x.shape[-1], own["proj.bias"].shape[0], feat_size=size, num_heads=heads, has_cls_token=False,
            kernel_q=(3, 3), kernel_kv=(3, 3), stride_q=(stride_q,) * 2, stride_kv=(stride_kv,) * 2,
            norm_layer=lambda dim, **_: torch.nn.LayerNorm(dim, 1e-6),
        )  # fmt: skip
        module.load_state_dict(own)
        with torch.no_grad():
            normed = norm(x, f"{name}.norm1")
            attended, pooled = attention(normed, size, module)
            x = linear(normed, f"{name}.proj") if f"{name}.proj.weight" in state else x
            if stride_q > 1:
                maps = x.transpose(1, 2).unflatten(2, size)
                x = F.max_pool2d(maps, stride_q + 1, stride_q, (stride_q + 1) // 2).flatten(2).transpose(1, 2)
            x, size = x + attended, pooled
            y = F.gelu(linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1"))
            x = x + linear(y, f"{name}.mlp.fc2")
        close(x, outputs[f"native.block{index}"])
    close(norm(x, "norm"), outputs["native.tokens"])
