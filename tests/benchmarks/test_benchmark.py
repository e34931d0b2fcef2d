"""The benchmark runs, peers compute the same as ours, files are written, bad input is refused; the table is whole."""

from __future__ import annotations

import csv
import json
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

import visionpe
from visionpe import Composition, Grid, create_encoding
from visionpe.backbones.shared.block import EncodedAttention
from visionpe.benchmarks import encodings as benchmark
from visionpe.benchmarks import encodings_table
from visionpe.benchmarks.cases import Case, Core
from visionpe.benchmarks.peers import ATTENTION, TOLERANCE, MismatchError, attention_peer, difference
from visionpe.benchmarks.plot import _spread
from visionpe.benchmarks.report import groups
from visionpe.benchmarks.specs import create, expand
from visionpe.benchmarks.timing import measure
from visionpe.cli import benchmark as command

SIZE = (3, 5)


def _attention(spec: str) -> tuple[EncodedAttention, visionpe.base.Composition]:
    """Ours on a non-square grid, every parameter drawn."""
    torch.manual_seed(0)
    attention = EncodedAttention(384, num_heads=6, qkv_bias=True)
    encoding = create(spec, grid_size=SIZE)
    with torch.no_grad():
        for parameter in [*attention.parameters(), *encoding.parameters()]:
            parameter.normal_(std=0.3 if parameter.ndim != 2 else 0.08)
    return attention.eval(), encoding.eval()


@pytest.mark.parametrize("spec", ATTENTION)
def test_peers(spec: str) -> None:
    attention, encoding = _attention(spec)
    x = torch.randn(2, 15, 384)
    ((name, peer),) = attention_peer(spec, attention, encoding.parts[0], SIZE).items()
    ours = partial(attention, encoding=encoding, grid=Grid(SIZE))
    assert difference(spec, name, ours, peer, x) <= TOLERANCE / 10
    with torch.no_grad():  # and the encoding shows in it
        assert (peer(x) - attention(x, create("none"), Grid(SIZE))).abs().max() > 100 * TOLERANCE
    out = peer(x).square().sum()
    out.backward()
    assert all(p.grad is not None for p in peer.parameters())


def test_no_peer() -> None:
    attention, encoding = _attention("fire")
    assert attention_peer("fire", attention, encoding.parts[0], SIZE) == {}


def test_wrong_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    right = ATTENTION["rpb"][1]

    def transposed(attention: nn.Module, encoding: nn.Module, size: tuple[int, int]) -> nn.Module:
        peer = right(attention, encoding, size)
        peer.relative_position_bias_table.copy_(encoding.table[0].transpose(1, 2).flatten(1).T)
        return peer

    monkeypatch.setitem(ATTENTION, "rpb", ("timm twisted", transposed))
    arguments = ["--encodings", "rpb", "--level", "attention", "--resolutions", "48", "--out", str(tmp_path)]
    assert command.encodings([*arguments, "--device", "cpu"]) == 1
    assert "rpb and timm twisted differ by" in capsys.readouterr().err
    with pytest.raises(MismatchError, match="differ by nan"):  # no number is no match
        difference("a", "b", nn.Identity(), nn.Identity(), torch.tensor([float("nan")]))


@pytest.mark.parametrize("spec", ["rope_mixed", "decomposed", "lepe", "irpe(on=qkv)", "rope_axial+rpb"])
def test_core(spec: str) -> None:
    """The core is what the attention module does between its linear layers."""
    attention, encoding = _attention(spec)
    attention.proj = nn.Identity()
    x = torch.randn(2, 15, 384)
    with torch.no_grad():
        core = Core(encoding, Grid(SIZE))(attention.qkv(x).view(2, 15, 3, 6, 64))
        torch.testing.assert_close(core.transpose(1, 2).flatten(2), attention(x, encoding, Grid(SIZE)))


def _rows(folder: Path, name: str, *arguments: str) -> list[dict]:
    options = ["--repeats", "1", "--device", "cpu", "--out", str(folder), "--name", name]
    assert command.encodings([*arguments, *options]) == 0
    rows = json.loads((folder / f"{name}.json").read_text())["rows"]
    assert all(row["ratio"] == 1 for row in rows if row["name"] == "none")
    assert (folder / f"{name}.png").stat().st_size > 5000
    return rows


def test_model(tmp_path: Path) -> None:
    rows = _rows(tmp_path, "whole", "--encodings", "ape", "--resolutions", "32")
    assert [row["name"] for row in rows] == ["none", "ape", "timm deit3_small_patch16_224"]
    assert rows[2]["difference"] <= TOLERANCE
    assert rows[1]["vs_peer"] == pytest.approx(rows[1]["ms"] / rows[2]["ms"])


def test_attention(tmp_path: Path) -> None:
    options = ["--encodings", "irpe", "--resolutions", "32", "48", "--level", "attention"]
    rows = _rows(tmp_path, "parts", *options, "--pass", "forward", "backward")
    assert [row["name"] for row in rows] == 4 * ["none", "irpe", "plain gather"]
    assert [(row["tokens"], row["pixels"]) for row in (rows[0], rows[-1])] == [(4, 32), (9, 48)]
    passes = ("forward", "forward and backward")
    forward, both = (sum(row["ms"] for row in rows if row["pass"] == which) for which in passes)
    assert both > forward
    with (tmp_path / "parts.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == [row["name"] for row in rows]
    text = (tmp_path / "parts.md").read_text()
    assert "**attention, forward and backward, 48 pixels (9 tokens), batch 1**" in text
    assert "| vs plain gather |" in text


def test_kernels_and_amp(tmp_path: Path) -> None:
    options = ["--encodings", "decomposed", "irpe(method=cross, on=qk)", "--resolutions", "64", "--level", "core"]
    kernels = ["--kernels", "auto", "low_rank", "math", "--prefix", "1", "--heads", "2"]
    rows = _rows(tmp_path, "kernels", *options, *kernels)
    assert [row["name"] for row in rows[:4]] == ["none", "decomposed", "decomposed [low_rank]", "decomposed [math]"]
    assert all(row["tokens"] == 17 for row in rows)
    assert all(row["difference"] < 1e-5 for row in rows[1:])
    assert rows[2]["difference"] > 0  # another kernel indeed


def test_block_amp(tmp_path: Path) -> None:
    options = ["--encodings", "irpe", "--resolutions", "32", "--level", "block", "--amp", "--pass", "backward"]
    assert [row["name"] for row in _rows(tmp_path, "amp", *options)] == ["none", "irpe"]


def test_idle_encodings_are_left_out() -> None:
    args = command.encodings_parser().parse_args(["--encodings", "all", "cpe", "seqpe(site=logits)"])
    chosen, idle = benchmark._chosen(args, "core")
    assert chosen[0] == "none"
    assert {"rpb", "lepe", "rope_axial", "cpe", "seqpe(site=logits)"} <= set(chosen)
    assert {"ape", "sincos"} <= set(idle)
    everything, nothing = benchmark._chosen(args, "block")
    assert (set(everything), nothing) == ({*chosen, *idle}, [])


def test_out_of_memory() -> None:
    def fails() -> None:
        raise RuntimeError("CUDA out of memory")

    cases = [Case("none", "none", lambda: 0), Case("a", "a", fails), Case("peer", "a", lambda: 0, peer=True)]
    rows = measure(cases, torch.device("cpu"), 2)
    assert [row["status"] for row in rows] == ["ok", "out of memory", "ok"]
    assert rows[1]["ms"] is rows[1]["ratio"] is rows[1]["vs_peer"] is None
    rows = [{"level": "core", "pass": "forward", "pixels": 32, "tokens": 4, **row} for row in rows]
    ((_, ordered),) = groups(rows, 1).items()
    assert [row["name"] for row in ordered] == ["none", "a", "peer"]

    def broken() -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        measure([Case("none", "none", broken)], torch.device("cpu"), 1)


def test_labels_do_not_overlap() -> None:
    wanted = [0.1, 0.11, 0.12, 0.5, 0.9, 0.9]
    places = _spread(wanted, 0.05)
    assert all(b - a > 0.0499 for a, b in pairwise(places))
    assert places[3] == pytest.approx(0.5)
    assert sum(places) == pytest.approx(sum(wanted))


def test_specs() -> None:
    wanted = ["none", "rope_mixed+ape", "irpe(method=cross,on=qkv)"]
    assert expand(["rope_mixed+ape", "irpe(method=cross,on=qkv)", "irpe:method=cross,on=qkv"]) == wanted


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resolutions", "100"], "--resolutions 100: must be a positive multiple of the patch"),
        (["--encodings", "rope_mixt"], "--encodings rope_mixt: encoding 'rope_mixt' is unknown; did you mean"),
        (["--encodings", "irpe(cross)"], "--encodings irpe(cross): 'irpe' goes over no other encoding; allowed"),
        (["--encodings", "irpe(method=crass)"], "--encodings irpe(method=crass): method='crass' is unknown; allowed"),
        (["--repeats", "0"], "--repeats 0: must be at least 1"),
        (["--threads", "0"], "--threads 0: must be at least 1"),
        (["--prefix", "-1"], "--prefix -1: must be at least 0"),
        (["--kernels", "math", "sdpa"], "--kernels math sdpa: allowed with --level core alone"),
        (["--device", "gpu"], "--device gpu: "),
    ],
)
def test_bad_input(arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert command.encodings(arguments) == 2
    assert message in capsys.readouterr().err


def test_table() -> None:
    rows = encodings_table.rows()
    assert [row[0] for row in rows if " " not in row[0]] == visionpe.list_encodings()
    assert "manhattan form=axial" in {row[0] for row in rows}
    structures = {row[0]: row[3] for row in rows}
    assert (structures["decomposed"], structures["irpe"], structures["rpb"]) == ("low rank", "buckets", "offset")


@pytest.mark.parametrize("spec", ["pape", "pope", "xl", "liere"])
def test_the_core_runs_what_reads_tokens_or_widens_heads(spec: str) -> None:
    encoding = create_encoding(spec, dim=16, num_heads=2, grid_size=(3, 4)).eval()
    out = Core(Composition([encoding]), Grid((3, 4)))(torch.randn(2, 12, 3, 2, 8))
    assert out.shape == (2, 2, 12, 8)
