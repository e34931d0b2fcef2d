"""At 128 x 128 tokens no structure of bias takes memory quadratic in the tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from visionpe.cli import benchmark

GIB = 1024  # in MiB; the matrix of a single head takes as much, without what it is made of
TOKENS = 128 * 128


@pytest.mark.long
def test_memory_is_linear(tmp_path: Path) -> None:
    """One encoding of each structure of bias on a head of 64; ``docs/benchmarks`` has them all on six."""
    structures = ("rpb", "decomposed", "irpe(on=k)")
    options = ["--level", "core", "--resolutions", "2048", "--heads", "1", "--device", "cpu", "--threads", "1"]
    arguments = [*options, "--memory-only", "--encodings", *structures, "--out", str(tmp_path), "--name", "memory"]
    assert benchmark.encodings(arguments) == 0
    rows = json.loads((tmp_path / "memory.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["none", *structures]
    assert all(row["tokens"] == TOKENS for row in rows)
    if rows[0]["peak_mib"] is None:
        pytest.skip("no peak memory on this system")
    assert rows[0]["peak_mib"] > 1  # the output alone takes 4 MiB
    above = {row["name"]: row["above_mib"] for row in rows}
    assert all(value < GIB for value in above.values()), above
    assert "| `rpb` |" in (tmp_path / "memory.md").read_text()
