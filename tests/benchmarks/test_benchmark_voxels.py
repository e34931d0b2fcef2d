"""The benchmark of whole models over voxels, on models of a few channels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from tiny_ptv3 import TINY

from visionpe.benchmarks import voxel_models
from visionpe.cli import benchmark

SWIN3D = {"embed_dims": (8, 16), "depths": (1, 1), "num_heads": (2, 2), "window_size": (3, 3)}


def test_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def tiny(name: str, checkpoint: None) -> torch.nn.Module:
        return timm.create_model(name, **(TINY if "ptv3" in name else SWIN3D))

    monkeypatch.setattr(voxel_models, "create_model", tiny)
    words = ["voxels", "--voxels", "1000", "--pass", "forward", "backward", "--repeats", "1", "--device", "cpu"]
    assert benchmark.main([*words, "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "voxel_models.json").read_text())["rows"]
    assert [(row["name"], row["pass"], row["voxels"]) for row in rows] == [
        (name, way, 1000) for way in ("forward", "backward") for name in ("swin3d_s_unet", "ptv3_b_unet")
    ]
    assert all(row["ms"] > 0 and row["peak_mib"] > 0 for row in rows)
    assert rows[0]["ratio"] == rows[2]["ratio"] == 1
    assert "| ptv3_b_unet | 1,000 | backward |" in (tmp_path / "voxel_models.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--voxels", "10"], "--voxels 10: must be at least 1000"),
        (
            ["--models", "vit_tiny_patch16_224"],
            "--models vit_tiny_patch16_224: takes no voxels; allowed: models such as",
        ),
        (["--models", "ptv3_x"], "ptv3_x"),
        (["--repeats", "0"], "--repeats 0: must be at least 1"),
    ],
)
def test_bad_input(arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.voxels([*arguments, "--device", "cpu", "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
