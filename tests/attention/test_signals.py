"""Signal attention against the formula as written, and against the reference file of Swin3D."""

from __future__ import annotations

import json

import pytest
import torch
from reference_files import REFERENCE
from safetensors import safe_open
from torch import Tensor

from visionpe.attention.signals import rows as signal_rows
from visionpe.attention.signals.attention import SignalRows, signal_attention, table_rows
from visionpe.sparse import SparseWindows


def formula(q: Tensor, k: Tensor, v: Tensor, rows: list, tables: list, mask: Tensor) -> Tensor:
    """Everything of size pairs x channels."""
    logits = q @ k.transpose(-2, -1)
    values = v[:, :, None].expand(-1, -1, q.shape[2], -1, -1)  # (W, H, n, n, d)
    for row, tq, tk, tv in zip(rows, *tables):
        for axis in range(len(row)):
            pick = [t[axis][:, row[axis]].transpose(0, 1) for t in (tq, tk, tv)]  # (W, H, n, n, d)
            logits = logits + (q[:, :, :, None] * pick[0]).sum(-1) + (k[:, :, None] * pick[1]).sum(-1)
            values = values + pick[2]
    weights = logits.masked_fill(~mask[:, None, None], -torch.inf).softmax(-1)
    return (weights[..., None] * values).sum(-2)


def case(dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor], Tensor]:
    q, k, v = torch.randn(3, 3, 2, 5, 4, dtype=dtype)
    rows = [torch.randint(6, (2, 3, 5, 5)), torch.randint(4, (3, 3, 5, 5))]
    tables = [torch.randn(len(row), 2, length, 4, dtype=dtype) for _ in range(3) for row, length in zip(rows, (6, 4))]
    mask = torch.tensor([[True] * 5, [True, True, False, True, False], [True, False, False, False, False]])
    return [q, k, v, *tables], rows, mask


def run(leaves: list[Tensor], rows: SignalRows | list[Tensor], mask: Tensor) -> Tensor:
    q, k, v, *t = leaves
    return signal_attention(q, k, v, rows, t[:2], t[2:4], t[4:], mask=mask)


def test_formula_and_gradients() -> None:
    leaves, rows, mask = case(torch.float64)
    leaves = [t.requires_grad_() for t in leaves]
    q, k, v, *t = leaves
    torch.testing.assert_close(run(leaves, rows, mask), formula(q, k, v, rows, [t[:2], t[2:4], t[4:]], mask))
    assert torch.autograd.gradcheck(lambda *x: run(list(x), rows, mask), leaves, fast_mode=True)
    narrow = run([x.detach().bfloat16() for x in leaves], rows, mask)
    assert narrow.dtype == torch.bfloat16
    torch.testing.assert_close(narrow.double(), run(leaves, rows, mask), atol=0.1, rtol=0.05)


def test_rows() -> None:
    signal = torch.tensor([0.0, 0.1, -0.1, 2.0, -2.0, 1e-9])[None, :, None]
    (rows,) = table_rows(signal, multiplier=8.0, length=32)[0]
    assert rows.diagonal().tolist() == [16] * 6
    assert rows[0].tolist() == [16, 15, 16, 0, 31, 16]  # floor, and the last row where the difference is too large
    assert rows[3, 4] == 31
    assert rows[4, 3] == 0


def output_and_gradients(leaves: list[Tensor], rows: SignalRows | list[Tensor], mask: Tensor) -> list[Tensor]:
    out = run(leaves, rows, mask)
    return [out, *torch.autograd.grad((out * torch.arange(out.numel()).view(out.shape).cos()).sum(), leaves)]


@pytest.mark.parametrize("way", ["chunks", "gather", "autocast"])
def test_every_way_of_computing(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    leaves, rows, mask = case(torch.float32 if way == "autocast" else torch.float64)
    leaves = [t.requires_grad_() for t in leaves]
    wanted = output_and_gradients(leaves, SignalRows(rows, (6, 4)), mask)
    if way == "chunks":
        monkeypatch.setattr(signal_rows, "CPU_PAIRS", 30)  # one window each
    elif way == "gather":
        monkeypatch.setattr(signal_rows, "sparse_products", lambda: False)
    with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
        plan = SignalRows(rows, (6, 4))
        assert len(plan.chunks) == (3 if way == "chunks" else 1)
        torch.testing.assert_close(output_and_gradients(leaves, plan, mask), wanted)


def test_rows_without_the_pairs_at_once() -> None:
    torch.manual_seed(0)
    signals = [(torch.rand(3, 5, axes) * 3, m, length) for axes, m, length in ((2, 4.0, 24), (3, 8.0, 32))]
    signals[1][0][0] = 1.0  # one colour in a window: the row in the middle alone
    direct = SignalRows.of_signals(signals)
    rows = [table_rows(values, multiplier=m, length=length) for values, m, length in signals]
    chunk, same = direct.chunks[0], SignalRows(rows, (24, 32)).chunks[0]
    assert torch.equal(chunk.used, same.used)
    assert torch.equal(chunk.places, same.places)
    width, starts = len(chunk.used), (0, 24, 48, 80, 112)
    for pair, (w, i, j) in enumerate([(w, i, j) for w in range(3) for i in range(5) for j in range(5)]):
        row = [int(axis[w, i, j]) + start for axis, start in zip([a for r in rows for a in r], starts)]
        of_query, of_key = chunk.places[pair].long().view(2, 5)
        assert chunk.used[of_query - (5 * w + i) * width].tolist() == row
        assert chunk.used[of_key - (15 + 5 * w + j) * width].tolist() == row


def test_rows_that_no_window_has_of_its_own() -> None:
    leaves, rows, mask = case(torch.float64)
    shared = [row[:, :1] for row in rows]
    each = [row.expand(-1, 3, -1, -1) for row in shared]
    torch.testing.assert_close(run(leaves, shared, mask), run(leaves, each, mask))


def test_bad_rows() -> None:
    leaves, rows, mask = case(torch.float32)
    with pytest.raises(ValueError, match="rows of 2 signals and lengths of 1: one of each"):
        SignalRows(rows, [6])
    with pytest.raises(ValueError, match="rows 0 to 5 of a table with 5 rows"):
        SignalRows(rows, [5, 4])
    with pytest.raises(ValueError, match=r"v is \(3, 2, 5, 4\); the rows are for 2 windows of 5 tokens"):
        run(leaves, SignalRows([row[:, :2] for row in rows], (6, 4)), mask)
    leaves[6] = leaves[6][:, :, :3]
    with pytest.raises(ValueError, match=r"tables_k have .*\[\(2, 6\), \(3, 3\)\]; the rows are for .*\(3, 4\)\]"):
        run(leaves, rows, mask)


@pytest.mark.parametrize("kind", ["plain", "shifted"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_reference(kind: str, dtype: torch.dtype) -> None:
    with safe_open(REFERENCE / "swin3d_attention.safetensors", "pt") as file:
        data = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        config = json.loads(file.metadata()["config"])
    parameters = {k[6:]: v.to(dtype).requires_grad_() for k, v in data.items() if k.startswith("param.")}
    coords, signals = data["input.coords"].long(), data["input.signals"].to(dtype)
    x = data["input.feats"].to(dtype).requires_grad_()
    heads, window, quant = config["num_heads"], config["window_size"], config["quant_size"]
    q, k, v = (x @ parameters["qkv.weight"].T + parameters["qkv.bias"]).unflatten(1, (3, heads, -1)).unbind(1)
    tables = [
        [parameters[f"{of}_{signal}_table"].transpose(1, 2) for signal in ("xyz", "rgb")]
        for of in ("query", "key", "value")
    ]
    plan = SparseWindows(coords, signals[:, 1:4], window=window, stride=config["stride"], shifted=kind == "shifted")
    attended = torch.zeros_like(v)
    for bucket in plan.buckets:
        rows = [
            table_rows(bucket.places, multiplier=quant, length=2 * window * quant),
            table_rows(signals[:, 4:7][bucket.rows], multiplier=2 * quant, length=8 * quant),
        ]
        here = [t[bucket.rows].transpose(1, 2) for t in (q * q.shape[-1] ** -0.5, k, v)]
        out = signal_attention(*here, rows, *tables, mask=bucket.mask).transpose(1, 2)
        attended = attended.index_put((bucket.rows[bucket.mask],), out[bucket.mask])
    out = attended.flatten(1) @ parameters["proj.weight"].T + parameters["proj.bias"]
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5

    def close(got: Tensor, wanted: Tensor) -> None:
        assert (got - wanted).abs().max() <= tolerance * wanted.abs().max()

    close(out, data[f"expect.{kind}.out"])
    inputs = {"feats": x, **parameters} if kind == "plain" else {"feats": x}
    grads = torch.autograd.grad((out * data["input.grad_out"].to(dtype)).sum(), list(inputs.values()))
    for name, grad in zip(inputs, grads):
        close(grad, data[f"grad.{kind}.{name}"])
