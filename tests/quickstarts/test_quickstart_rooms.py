"""The quickstart of the rooms, without its trainings: how it reads them, and what it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from visionpe.cli import quickstart
from visionpe.quickstarts.rooms import report
from visionpe.quickstarts.rooms.curve import Curve, read_curve
from visionpe.quickstarts.rooms.plot import plot


def test_curve_of_a_resumed_training(tmp_path: Path) -> None:
    logs = {
        "a": [{"loss": 2.0, "time": 3.0, "epoch": 1, "step": 10}, {"loss": 2.0, "time": 6.0, "epoch": 1, "step": 15}],
        "b": [
            {"loss": 1.0, "time": 3.0, "epoch": 2, "step": 20},
            {"loss": 1.0, "time": 9.0, "epoch": 2, "step": 30},
            {"mIoU": 55.0, "step": 2},
        ],
    }
    logs["a"].append({"mIoU": 40.0, "step": 1})
    for name, lines in logs.items():
        file = tmp_path / name / "vis_data/scalars.json"
        file.parent.mkdir(parents=True)
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    curve = read_curve("crse", tmp_path)
    assert curve.miou == (40.0, 55.0)
    assert curve.minutes == pytest.approx((1.0, 1.0 + (15 + 90) / 60))


def test_what_it_leaves(tmp_path: Path) -> None:
    rows = [{"encoding": "crse", "minutes": 1.25, "mIoU": 71.26}, {"encoding": "none", "minutes": 1.0, "mIoU": 44.0}]
    curves = [Curve("crse", (0.5, 1.25), (40.0, 71.0)), Curve("none", (), ())]
    files = report.write(rows, curves, tmp_path)
    assert files[0].read_text().splitlines()[:3] == [
        "| encoding | minutes | mIoU |", "| --- | ---: | ---: |", "| crse | 1.2 | 71.3 |",
    ]  # fmt: skip
    assert json.loads(files[2].read_text())["curves"][0]["miou"] == [40.0, 71.0]
    plot(tmp_path / "miou.png", curves)
    assert (tmp_path / "miou.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--encodings", "crsee"], "--encodings crsee: no configs/rooms/swin3d_tiny_crsee.py; allowed: crse"),
        (
            ["--backbone", "ptv3", "--encodings", "crse"],
            "no configs/rooms/ptv3_tiny_crse.py; allowed: none, rope_axial",
        ),
        (["--epochs", "0"], "--epochs 0: must be at least 1"),
        (["--jobs", "0"], "--jobs 0: must be at least 1"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert quickstart.rooms(arguments) == 2
    assert message in capsys.readouterr().err
