"""The benchmark of images of several sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from visionpe.benchmarks import mixed
from visionpe.cli.benchmark import main


def test_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixed, "PHOTOGRAPHS", mixed.PHOTOGRAPHS[:4])
    words = ["mixed", "--models", "rope_axial_vit_ti", "vit_tiny_patch16_224", "--pixels", "64", "--repeats", "1"]
    assert main([*words, "--device", "cpu", "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "mixed.json").read_text())["rows"]
    assert len(rows) == 2 * 2 * 4
    assert all(row["ms"] > 0 for row in rows)
    compared = [row["difference"] for row in rows if row["name"] in ("padded", "packed")]
    assert len(compared) == 8
    assert max(compared) < 1e-4
    assert "batch 4" in (tmp_path / "mixed.md").read_text()


def test_no_vit(tmp_path: Path, capsys: Any) -> None:
    assert main(["mixed", "--models", "resnet18", "--out", str(tmp_path)]) == 2
    assert "--models resnet18" in capsys.readouterr().err
