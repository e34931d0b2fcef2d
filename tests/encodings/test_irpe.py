"""iRPE: buckets of offsets, on queries, keys and values."""

from __future__ import annotations

from math import sqrt

import pytest
import timm
import torch
from zoo_checks import check_compile, check_export, check_gradients, check_sizes, close, make, read, through

import visionpe.attention.kernels
import visionpe.encodings.bias.irpe
from visionpe import Grid
from visionpe.attention.buckets import piecewise_index
from visionpe.attention.dispatch import AttentionWeights, attend

METHODS = {"product": "product", "cross": "cross", "quant": "quant", "euc": "euclidean"}
RUNS = [
    ("g7x9", "product_ctx_k_shared"),
    ("g7x9", "product_ctx_v_perhead"),
    *((run, spec) for run in ("g4x11", "g10x6") for spec in ("cross_ctx_k_shared_r2p5", "euc_ctx_q_shared_r2")),
    *((run, "quant_bias_k_perhead_r5") for run in ("g4x11", "g10x6")),
]


def options(spec: dict) -> dict:
    return {
        "name": "irpe",
        "method": METHODS[spec["method"]],
        "mode": {"ctx": "contextual", "bias": "bias"}[spec["mode"]],
        "shared": spec["shared_head"],
        "ratio": spec["ratio"],
        "on": spec["rpe_on"],
    }


def tables(weights: dict, prefix: str, buckets: int, axis: int) -> torch.Tensor:
    """Official tables below ``prefix``, rows before columns, with the bucket of prefix tokens: (parts, heads, ...)."""
    keys = [k for part in ("rp_rows.", "rp_cols.", "") for k in weights if k.startswith(f"{prefix}.{part}lookup")]
    stacked = torch.stack([weights[k] for k in keys])
    lacking = buckets - stacked.shape[axis]
    shape = list(stacked.shape)
    shape[axis] = lacking
    return torch.cat((stacked, torch.full(shape, 99.0)), dim=axis)  # never to be seen


@pytest.mark.parametrize(("run", "name"), RUNS)
def test_modules(run: str, name: str) -> None:
    weights, inputs, outputs, metadata = read("irpe_modules")
    spec = metadata["kwargs"]["specs"][name]
    (grid,) = (Grid(tuple(r["grid"]), r["skip"]) for r in metadata["runs"] if r["name"] == run)
    encoding, letter = make(options(spec), depth=1)["irpe"], spec["rpe_on"]
    table = tables(weights, f"rp.{name}", encoding.buckets, -2 if letter == "v" else -1)
    encoding.load_state_dict({f"{letter}_table": table[None]})

    buckets = encoding.index(grid, 0, grid.num_tokens, torch.device("cpu"))
    for part, ours in zip(("rows", "cols") if len(buckets) == 2 else ("",), buckets):
        assert torch.equal(ours, outputs[f"{run}.buckets.{name}{'.' + part if part else ''}"].long())

    x, wanted = inputs[run] * sqrt(8), outputs[f"{run}.rpe.{name}"]  # the modules take what is scaled already
    if letter == "v":
        weighted = inputs[f"{run}.attn"]

        class Given:
            def rows(self, start: int, stop: int) -> torch.Tensor:
                return weighted[..., start:stop, :]

            def chunks(self) -> list[tuple[int, int]]:
                return [(0, 10), (10, grid.num_tokens)]

        x = torch.randn_like(inputs[run])
        close(encoding.mix(x, x, grid, weights=Given()) - x, wanted)
        return
    matrix = encoding.bias(x, x, grid).matrix(x.dtype)
    # of the keys: the pair is looked up the other way round
    close(matrix, wanted.transpose(-2, -1) if letter == "q" else wanted)
    some = encoding.bias(x, x, grid).rows(5, 17, x.dtype)
    torch.testing.assert_close(some, matrix[..., 5:17, :])


@pytest.mark.parametrize("name", ["irpe_product_ctx_k_shared", "irpe_cross_bias_qk_perhead"])
@pytest.mark.parametrize("run", ["native", "lowcontrast", "larger"])
def test_official_model(name: str, run: str) -> None:
    weights, inputs, outputs, metadata = read(name)
    if run not in inputs:
        pytest.skip("the file has no such run")
    kwargs = metadata["kwargs"]
    keywords = {k: kwargs[k] for k in ("img_size", "patch_size", "embed_dim", "depth", "num_heads", "num_classes")}
    spec = [options(kwargs["rpe_config"]), {"name": "ape", "policy": "bicubic"}]
    model = timm.create_model("none_vit_ti", pos_encoding=spec, init_values=0, **keywords).eval()
    state = {k: v for k, v in weights.items() if "rpe_" not in k and k != "pos_embed"}
    state["cls_token"] = weights["cls_token"] + weights["pos_embed"][:, :1]
    state["pos_encoding.ape.table"] = weights["pos_embed"][0, 1:].unflatten(0, (8, 8))
    irpe = model.pos_encoding["irpe"]
    for letter in kwargs["rpe_config"]["rpe_on"]:
        layers = [tables(weights, f"blocks.{i}.attn.rpe_{letter}", irpe.buckets, -1) for i in range(2)]
        state[f"pos_encoding.irpe.{letter}_table"] = torch.stack(layers)
    model.load_state_dict(state)
    with torch.no_grad():
        close(model.forward_features(inputs[run]), outputs[f"{run}.tokens"])
        close(model(inputs[run]), outputs[f"{run}.logits"])


def test_piecewise_index() -> None:
    offsets = torch.arange(-9.0, 10)
    wanted = [-3] * 6 + [-2, -2, -1, 0, 1, 2, 2] + [3] * 6
    assert piecewise_index(offsets, 1.9).tolist() == wanted
    assert piecewise_index(torch.tensor([0.5, 1.5, 2.5, -1.5]), 3.0).tolist() == [0, 2, 2, -2]  # half to even
    assert piecewise_index(torch.tensor([6.0, 7, 12, 30, 99]), 5.0).tolist() == [5, 6, 7, 9, 10]


@pytest.mark.parametrize("method", ["product", "cross", "quant", "euclidean"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_formula(method: str, shared: bool, prefix: int) -> None:
    """All three terms, pair by pair."""
    encoding = make({"name": "irpe", "method": method, "on": "qkv", "shared": shared}, depth=2)
    irpe, grid = encoding["irpe"], Grid((3, 5), prefix)
    q, k, v = torch.randn(3, 2, 2, grid.num_tokens, 8)
    x = torch.zeros(2, grid.num_tokens, 16)
    _, logits, mixed = (t.detach() for t in through(encoding, q, k, v, x, grid, 1))
    pair = irpe.index(grid, 0, grid.num_tokens, torch.device("cpu"))
    plain = q @ k.transpose(2, 3) * 8**-0.5
    softmax = logits.softmax(-1)
    for h in range(2):
        of = 0 if shared else h
        for i in range(0, grid.num_tokens, 4):
            total = (softmax[:, h, i, None] @ v[:, h])[:, 0]
            for j in range(grid.num_tokens):
                wanted = plain[:, h, i, j].clone()
                for part, bucket in enumerate(pair):
                    wanted += q[:, h, i] * 8**-0.5 @ irpe.k_table[1, part, of, :, bucket[i, j]]
                    wanted += k[:, h, j] * 8**-0.5 @ irpe.q_table[1, part, of, :, bucket[j, i]]
                    total = total + softmax[:, h, i, j, None] * irpe.v_table[1, part, of, bucket[i, j]]
                torch.testing.assert_close(logits[:, h, i, j], wanted.detach(), atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(mixed[:, h, i], total.detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("on", ["k", "qk", "v", "qkv"])
def test_chunks(on: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks, and without the kept matrix of buckets, everything stays."""
    encoding, grid = make({"name": "irpe", "on": on}), Grid((6, 7), 1)
    q, k, v = torch.randn(3, 2, 2, 43, 8)

    def run(kernel: str) -> torch.Tensor:
        biases = encoding.bias(q, k, grid)
        return encoding.mix(
            attend(q, k, v, biases=biases, kernel=kernel), v, grid, weights=AttentionWeights(q, k, biases)
        )

    wanted = run("math")
    monkeypatch.setattr(visionpe.attention.kernels, "CHUNK_BYTES", 2000)
    monkeypatch.setattr(visionpe.encodings.bias.irpe, "INDEX_BYTES", 0)
    encoding["irpe"].cache.clear()
    torch.testing.assert_close(run("chunked"), wanted, atol=1e-5, rtol=1e-5)
    assert len(encoding["irpe"].cache) == 0


@pytest.mark.parametrize("kind", [{"on": "qkv"}, {"on": "qk", "mode": "bias"}], ids=str)
def test_coordinates_and_policies(kind: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    encoding = make({"name": "irpe", **kind})
    coords = torch.randint(0, 7, (2, 9, 2)).float()
    q, k, v = torch.randn(3, 2, 2, 10, 8)
    x = torch.zeros(2, 10, 16)
    for policy in ("extrapolate", "interpolate"):
        encoding["irpe"].set_policy(policy)
        together = through(encoding, q, k, v, x, Grid((7, 7), 1, coords=coords), 1)
        for i in range(2):
            one = (t[i : i + 1] for t in (q, k, v, x))
            alone = through(encoding, *one, Grid((7, 7), 1, coords=coords[i]), 1)
            for a, b in zip(together, alone):
                torch.testing.assert_close(a[i : i + 1], b, atol=1e-5, rtol=1e-5)
        biases = encoding.bias(q, k, Grid((7, 7), 1, coords=coords))
        wanted = attend(q, k, v, biases=biases, kernel="math")
        with monkeypatch.context() as patch:  # sample by sample
            patch.setattr(visionpe.attention.kernels, "CHUNK_BYTES", 400)
            torch.testing.assert_close(attend(q, k, v, biases=biases, kernel="chunked"), wanted, atol=1e-5, rtol=1e-5)
        dense = Grid((4, 8), 1)
        listed = Grid((4, 8), 1, coords=Grid((4, 8)).positions())
        for reverse in (False, True):
            a, b = (encoding["irpe"].index(g, 3, 20, torch.device("cpu"), reverse=reverse)[0] for g in (dense, listed))
            assert torch.equal(a, b)
    # interpolated: two columns of 8 are one of the 4 in training, rows stay
    stretched = encoding["irpe"].index(Grid((4, 8)), 0, 32, torch.device("cpu"))[0]
    plain = make("irpe")["irpe"].index(Grid((4, 4)), 0, 16, torch.device("cpu"))[0]
    assert torch.equal(stretched.view(4, 8, 4, 8)[:, ::2, :, ::2], plain.view(4, 4, 4, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "euc"}, "method='euc' is unknown; allowed: product, cross, quant, euclidean"),
        ({"mode": "ctx"}, "mode='ctx' is unknown; allowed: contextual, bias"),
        ({"on": "x"}, "on='x' is unknown; allowed: any of the letters q, k, v"),
        ({"on": ""}, "on='' is unknown"),
        ({"on": "kk"}, "on='kk' is unknown"),
        ({"on": "kv", "mode": "bias"}, "on='kv' with mode='bias'"),
        ({"ratio": 0}, "ratio=0 must be positive"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make({"name": "irpe", **options})


def test_values_need_weights() -> None:
    v = torch.zeros(1, 2, 4, 8)
    with pytest.raises(ValueError, match="weights=None: irpe with on='v'"):
        make({"name": "irpe", "on": "v"}).mix(v, v, Grid((2, 2)))


@pytest.mark.parametrize("method", ["product", "cross", "quant", "euclidean"])
def test_gradients(method: str) -> None:
    check_gradients({"name": "irpe", "method": method, "on": "qkv", "shared": method == "cross"})
    check_gradients({"name": "irpe", "method": method, "on": "qk", "mode": "bias", "shared": method != "cross"})


IN_A_MODEL = [
    {"name": "irpe", "on": "kv", "shared": False},
    {"name": "irpe", "on": "q", "method": "cross"},
    {"name": "irpe", "on": "k", "method": "euclidean", "mode": "bias"},
]


@pytest.mark.parametrize("spec", IN_A_MODEL)
def test_in_a_model(spec: dict) -> None:
    check_sizes(spec)


@pytest.mark.parametrize(
    "spec", [IN_A_MODEL[0], *(pytest.param(spec, marks=pytest.mark.long) for spec in IN_A_MODEL[1:])]
)
def test_exported(spec: dict) -> None:
    check_export(spec)


@pytest.mark.long
def test_compiled() -> None:
    check_compile({"name": "irpe", "on": "kv", "shared": False})


def test_euclidean_rounds_the_distance_first() -> None:
    """2 rows and 3 columns away: sqrt(13) is 4, which is in bucket 3; without rounding it would be in bucket 2."""
    irpe = make({"name": "irpe", "method": "euclidean"})["irpe"]
    (index,) = irpe.index(Grid((4, 4)), 0, 16, torch.device("cpu"))
    assert index[0, 2 * 4 + 3].item() == irpe.reach + 3


@pytest.mark.parametrize("spec", [{"mode": "bias"}, {"mode": "bias", "shared": False, "on": "qk"}, {"on": "qk"}])
@pytest.mark.parametrize("kernel", ["math", "small", "sdpa", "chunked"])
def test_samples_that_stand_elsewhere(spec: dict, kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sample has its own coordinates, also where samples are computed one after the other."""
    encoding = make({"name": "irpe", **spec}, dim=32, grid_size=(6, 6))
    torch.nn.init.normal_(next(encoding.parameters()))
    coords = torch.stack([torch.randperm(36)[:9] for _ in range(3)])
    coords = torch.stack((coords // 6, coords % 6), dim=-1).float()  # (B, N, axes)
    q, k, v = (torch.randn(3, 2, 10, 16) for _ in range(3))
    for name in ("CHUNK_BYTES", "SMALL_BYTES"):
        monkeypatch.setattr(visionpe.attention.kernels, name, 512)

    def attended(some: slice, places: torch.Tensor, kernel: str) -> torch.Tensor:
        bias = encoding.bias(q[some], k[some], Grid((6, 6), 1, coords=places), layer=0)
        return attend(q[some], k[some], v[some], biases=bias if isinstance(bias, list) else [bias], kernel=kernel)

    with torch.no_grad():
        each = [attended(slice(i, i + 1), coords[i], "math") for i in range(3)]
        torch.testing.assert_close(attended(slice(None), coords, kernel), torch.cat(each), atol=1e-5, rtol=1e-5)
