"""The benchmark of the backbones: peers give our output, files are written, bad input is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from visionpe.cli import benchmark


@pytest.mark.long
def test_one_round(tmp_path: Path) -> None:
    arguments = ["--resolutions", "224", "--repeats", "1", "--device", "cpu", "--out", str(tmp_path)]
    assert benchmark.backbones([*arguments, "--backbones", "swin_t", "cswin_t", "vitdet_b"]) == 0
    rows = json.loads((tmp_path / "backbones.json").read_text())["rows"]
    assert [row["name"] for row in rows] == [
        *("swin_t", "timm swin_tiny", "cswin_t", "plain cswin_t", "vitdet_b", "timm samvit_base")
    ]
    assert all(row["difference"] < 1e-5 for row in rows if row["peer"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resolutions", "100"], "--resolutions 100: must be a positive multiple of 32"),
        (["--repeats", "0"], "--repeats 0: must be at least 1"),
        (["--batch-size", "0"], "--batch-size 0: must be at least 1"),
    ],
)
def test_bad_input(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.backbones(arguments) == 2
    assert message in capsys.readouterr().err
