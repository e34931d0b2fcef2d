"""The benchmark runs, compares with timm on the same weights, and refuses bad input; the table names every encoding."""

from __future__ import annotations

import json
from pathlib import Path

import benchmark
import encodings_table
import pytest

import visionpe


def test_benchmark(tmp_path: Path) -> None:
    options = ["--encodings", "ape", "--resolutions", "32", "--repeats", "2", "--out", str(tmp_path)]
    assert benchmark.main([*options, "--level", "model", "attention", "--backward"]) == 0
    written = json.loads((tmp_path / "benchmark.json").read_text())
    names = [row["name"] for row in written["rows"]]
    assert names == ["none", "ape", "timm deit3_small_patch16_224", "none", "ape"]
    assert written["rows"][0]["ratio"] == 1
    assert written["rows"][2]["difference"] < 1e-5
    assert (tmp_path / "benchmark.csv").read_text().count("\n") == 6
    assert (tmp_path / "benchmark.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resolutions", "100"], "--resolutions 100: must be a positive multiple of the patch"),
        (["--encodings", "rope_mixt"], "--encodings rope_mixt: encoding 'rope_mixt' is unknown; did you mean"),
        (["--repeats", "0"], "--repeats 0: must be at least 1"),
    ],
)
def test_bad_input(arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert benchmark.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_table() -> None:
    rows = encodings_table.rows()
    assert [row[0] for row in rows] == visionpe.list_encodings()
    structures = {row[0]: row[3] for row in rows}
    assert (structures["decomposed"], structures["irpe"], structures["rpb"]) == ("low rank", "buckets", "offset")
