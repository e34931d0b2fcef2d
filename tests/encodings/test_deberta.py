"""DeBERTa's terms against its published code on one axis, and the formula pair by pair on a grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_vit
from safetensors.torch import load_file
from torch import nn
from zoo_checks import check_compile, check_export, check_gradients, check_sizes, make

from visionpe import Grid, attend
from visionpe.attention.buckets import log_index

REFERENCE = Path(__file__).parents[1] / "reference"
LOG = {"buckets": 6, "longest": 20}
CASES: dict[str, dict[str, Any]] = {
    "clipped": {"buckets": 4, "norm": False},
    "log": LOG,
    "c2p": {**LOG, "terms": "c2p"},
    "p2c": {**LOG, "terms": "p2c"},
}
KERNELS = ("auto", "low_rank", "sdpa", "chunked", "small", "math")


def test_buckets_of_the_published_code() -> None:
    data = load_file(REFERENCE / "deberta.safetensors")
    assert torch.equal(log_index(torch.arange(-600, 601), 256, 512), data["buckets"])
    assert torch.equal(log_index(torch.arange(-60, 61), 6, 20), data["few_buckets"])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shared", [False, True])
@torch.no_grad()
def test_published_code(case: str, shared: bool) -> None:
    """23 tokens on one axis, the softmax of its logits: with clipped offsets as version 1, with buckets as 2 and 3."""
    data = {
        k.partition(".")[2]: v
        for k, v in load_file(REFERENCE / "deberta.safetensors").items()
        if k.startswith(case + ".")
    }
    spec = {"name": "deberta", "form": "code", "shared": shared, **CASES[case]}
    encoding = make(spec, grid_size=(23,))
    part: Any = encoding["deberta"]
    part.table[0] = data["table"]
    for name in ("key", "query"):
        if f"{name}.weight" in data:
            getattr(part, name)[0 if shared else 1].load_state_dict(
                {k: data[f"{name}.{k}"] for k in ("weight", "bias")}
            )
    if part.norm is not None:
        part.norm.load_state_dict({k: data[f"norm.{k}"] for k in ("weight", "bias")})
    q, k, grid = data["q"], data["k"], Grid((23,))
    (bias,), rule = encoding.bias(q, k, grid, layer=1), encoding.logit_rule(grid)
    scaled = bias.scaled(rule.factor)
    for kernel in KERNELS:
        probs = attend(
            q, k, torch.eye(23).expand(2, 2, -1, -1), biases=[scaled], scale=8**-0.5 * rule.factor, kernel=kernel
        )
        torch.testing.assert_close(probs, data["probs"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(7,), (3, 5), (2, 3, 4)])
@pytest.mark.parametrize(
    "options", [{"buckets": 2}, {"buckets": 2, "form": "code"}, {"buckets": 2, "longest": 4}], ids=str
)
@pytest.mark.parametrize("listed", [False, True])
@torch.no_grad()
def test_pair_by_pair(size: tuple[int, ...], options: dict[str, Any], listed: bool) -> None:
    encoding = make({"name": "deberta", **options}, grid_size=size).double()
    part: Any = encoding["deberta"]
    places, grid = Grid(size).positions().long(), Grid(size, 1)
    if listed:
        places = places[torch.randperm(len(places))[:-2]]
        grid = Grid(size, 1, coords=places.float())
    q, k = torch.randn(2, 1, 2, grid.num_tokens, 8, dtype=torch.float64)
    (bias,) = encoding.bias(q, k, grid, layer=1)
    normed = nn.functional.layer_norm(part.table, (16,), part.norm.weight, part.norm.bias, 1e-7)
    keys, queries = (module[1](normed).unflatten(-1, (2, 8)) for module in (part.key, part.query))

    def delta(offset: int) -> int:
        if "longest" in options:  # one bucket for all beyond 0
            offset = max(-1, min(1, offset))
        return max(0, min(3, offset + 2))

    wanted = torch.zeros(1, 2, grid.num_tokens, grid.num_tokens, dtype=torch.float64)
    for i, here in enumerate(places.tolist(), start=1):
        for j, there in enumerate(places.tolist(), start=1):
            for axis, (a, b) in enumerate(zip(here, there)):
                wanted[0, :, i, j] += (q[0, :, i] * keys[axis, delta(a - b)]).sum(-1)
                met = delta(a - b if options.get("form") == "code" else b - a)
                wanted[0, :, i, j] += (k[0, :, j] * queries[axis, met]).sum(-1)
    torch.testing.assert_close(bias.matrix(q.dtype), wanted * 8**-0.5)


@torch.no_grad()
def test_all_logits_share_the_scale() -> None:
    """Where a model attends, content with content is divided by sqrt(3) too."""
    model = tiny_vit("deberta", depth=1)
    for parameter in (model.pos_encoding["deberta"].key, model.pos_encoding["deberta"].query):
        for p in parameter.parameters():
            p.zero_()
    x, grid = torch.randn(1, 37, 32), Grid((6, 6), 1)
    attn = model.blocks[0].attn
    q, k, v = attn.qkv(x).unflatten(-1, (3, 2, 16)).permute(2, 0, 3, 1, 4)
    wanted = attn.proj((((q @ k.mT) * 48**-0.5).softmax(-1) @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attn(x, model.pos_encoding, grid), wanted, atol=1e-5, rtol=1e-5)


IN_A_MODEL = [{}, {"longest": 12, "shared": True}, {"terms": "c2p"}, {"terms": "p2c", "norm": False}]


@pytest.mark.parametrize("options", IN_A_MODEL, ids=str)
def test_in_a_model(options: dict[str, Any]) -> None:
    spec = {"name": "deberta", **options}
    check_gradients(spec)
    check_sizes(spec)
    check_export(spec)
    check_compile(spec)
