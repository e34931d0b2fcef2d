"""Shaw's relative positions against AutoFormer's published code, and the formula pair by pair."""

from __future__ import annotations

import copy
from math import prod
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from zoo_checks import check_compile, check_export, check_gradients, check_sizes, make

import visionpe
from visionpe import Grid, attend
from visionpe.attention.dispatch import AttentionWeights
from visionpe.encodings.bias.axes import offset_index

REFERENCE = Path(__file__).parents[1] / "reference"
BOTH = {"name": "shaw", "values": True, "clip": 2}
KERNELS = ("auto", "low_rank", "sdpa", "chunked", "small", "math")


@torch.no_grad()
def test_autoformer() -> None:
    """Clipped at 2 on 4 x 4 patches, with a class token that has a vector of its own in both tables of theirs."""
    data = load_file(REFERENCE / "shaw_autoformer.safetensors")
    encoding = make({**BOTH, "prefix_slots": 1})
    part: Any = encoding["shaw"]
    for letter in "kv":
        vertical, horizontal = data[f"{letter}_table.v"], data[f"{letter}_table.h"]
        # they count key - query
        getattr(part, f"{letter}_table")[1].copy_(torch.stack((vertical[1:], horizontal[1:])).flip(1))
        getattr(part, f"{letter}_prefix")[1].copy_(vertical[0] + horizontal[0])
    q, k, v, grid = data["q"], data["k"], data["v"], Grid((4, 4), 1)
    biases = encoding.bias(q, k, grid, layer=1)
    logits = q @ k.mT * 8**-0.5 + biases[0].matrix(q.dtype)
    torch.testing.assert_close(logits, data["logits"], atol=1e-5, rtol=1e-5)
    for kernel in KERNELS:
        attended = attend(q, k, v, biases=biases, kernel=kernel)
        out = encoding.mix(attended, v, grid, layer=1, weights=AttentionWeights(q, k, biases))
        torch.testing.assert_close(out.transpose(1, 2).flatten(2), data["out"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(7,), (3, 5), (2, 3, 4)])
@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("listed", [False, True])
@torch.no_grad()
def test_pair_by_pair(size: tuple[int, ...], prefix: int, listed: bool) -> None:
    encoding = make(BOTH, grid_size=size).double()
    part: Any = encoding["shaw"]
    places = Grid(size).positions().long()
    grid = Grid(size, prefix)
    if listed:
        order = torch.randperm(len(places))[:-2]
        places = places[order]
        grid = Grid(size, prefix, coords=places.float())
    q, k, v = torch.randn(3, 2, 2, grid.num_tokens, 8, dtype=torch.float64)
    biases = encoding.bias(q, k, grid, layer=1)
    got = biases[0].matrix(q.dtype)
    weights = AttentionWeights(q, k, biases)
    out = encoding.mix(torch.zeros_like(v), v, grid, layer=1, weights=weights)
    softmax = (q @ k.mT * 8**-0.5 + got).softmax(-1)
    wanted, values = torch.zeros_like(got), torch.zeros_like(out)
    for i in range(len(places)):
        for j in range(len(places)):
            for axis, offset in enumerate((places[i] - places[j]).clamp(-2, 2) + 2):
                one, other = i + prefix, j + prefix
                wanted[..., one, other] += q[..., one, :] @ part.k_table[1, axis, offset] * 8**-0.5
                values[..., one, :] += softmax[..., one, other, None] * part.v_table[1, axis, offset]
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(out, values)


@torch.no_grad()
def test_policies() -> None:
    """Trained on six tokens and used on twelve: interpolated, every second offset is a trained one."""
    encoding: Any = make({"name": "shaw", "clip": 8}, grid_size=(6, 6))["shaw"]
    grid, q = Grid((12, 12)), torch.randn(1, 2, 144, 8)
    tables = {}
    for policy in encoding.policies:
        encoding.set_policy(policy)
        tables[policy] = encoding._vectors("k", grid, 1, q.dtype)[0]
    own = encoding.k_table[1, 0]
    torch.testing.assert_close(tables["extrapolate"], own[(torch.arange(-11, 12).clamp(-8, 8) + 8)])
    torch.testing.assert_close(tables["clamp"], own[(torch.arange(-11, 12).clamp(-5, 5) + 8)])
    torch.testing.assert_close(tables["interpolate"][1::2], own[3:14])
    torch.testing.assert_close(tables["interpolate"][2:-1:2], (own[3:13] + own[4:14]) / 2)


def test_values_need_weights() -> None:
    v = torch.zeros(1, 2, 4, 8)
    with pytest.raises(ValueError, match="weights=None: shaw with values=True"):
        make(BOTH).mix(v, v, Grid((2, 2)))


@pytest.mark.parametrize("queries", [(2, 3), (8, 6)])
@torch.no_grad()
def test_where_attention_pools(queries: tuple[int, int]) -> None:
    """Queries and keys on different grids: the offsets are those of the finer one, in logits and values."""
    part: Any = make(BOTH, grid_size=(4, 6)).double()["shaw"]
    grid = Grid((4, 6), queries=queries)
    q, k = torch.randn(1, 2, prod(queries), 8).double(), torch.randn(1, 2, 24, 8).double()
    bias = part.bias(q, k, grid, layer=1)
    softmax = (q @ k.mT * 8**-0.5 + bias.matrix(q.dtype)).softmax(-1)
    out = part.mix(torch.zeros_like(q), k, grid, layer=1, weights=AttentionWeights(q, k, [bias]))
    wanted, values = torch.zeros_like(softmax), torch.zeros_like(out)
    for axis, (n, m) in enumerate(zip(queries, grid.size)):
        offset = (offset_index(n, m) - max(n, m) + 1).clamp(-2, 2) + 2
        i, j = (Grid(size).positions().long()[:, axis] for size in (queries, grid.size))
        index = offset[i[:, None], j]
        wanted += torch.einsum("bhic,ijc->bhij", q, part.k_table[1, axis][index]) * 8**-0.5
        values += torch.einsum("bhij,ijc->bhic", softmax, part.v_table[1, axis][index])
    torch.testing.assert_close(bias.matrix(q.dtype), wanted)
    torch.testing.assert_close(out, values)


def test_values_of_another_width() -> None:
    """LeViT's are wider than its keys."""
    options: dict[str, Any] = {"embed_dim": (32, 48, 64), "key_dim": 8, "num_heads": (2, 3, 4), "depth": (1, 1, 1)}
    model = timm.create_model("levit_128s", num_classes=0, img_size=64, **options).eval()
    with pytest.raises(ValueError, match="acts on values, which are 16 channels wide"):
        visionpe.adapt(copy.deepcopy(model), pos_encoding=BOTH)
    assert visionpe.adapt(model, pos_encoding="shaw")(torch.randn(1, 3, 64, 96)).isfinite().all()


@pytest.mark.parametrize("spec", [BOTH, {**BOTH, "prefix_slots": 1}])
def test_in_a_model(spec: dict[str, Any]) -> None:
    check_gradients(spec)
    check_sizes(spec)
    check_export(spec)
    check_compile(spec)
