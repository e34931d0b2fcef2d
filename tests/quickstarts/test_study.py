"""The study of the policies: what it runs, and what it refuses."""

from __future__ import annotations

import pytest

from visionpe.cli import study as command
from visionpe.quickstarts import study


def test_the_sweep_of_a_study() -> None:
    args = command.parser().parse_args(["--jobs", "2", "--out", "x"])
    line = study.sweep_command(args, ["run_a", "run_b"])
    assert line[line.index("--runs") + 1 :][:2] == ["run_a", "run_b"]
    assert {"default", "all", "auto", "--launcher", "--nproc-per-node=2", "6x=24"} <= set(line)
    alone = study.sweep_command(command.parser().parse_args(["--jobs", "1", "--quick"]), ["run_a"])
    assert "--launcher" not in alone
    assert alone[alone.index("--limit") + 1] == "24"


def test_study_refuses(capsys: pytest.CaptureFixture) -> None:
    assert command.main(["--seeds", "0"]) == 2
    assert "--seeds 0: must be at least 1" in capsys.readouterr().err
    assert command.main(["--encodings", "nope"]) == 2
    assert "--encodings nope: no " in capsys.readouterr().err
