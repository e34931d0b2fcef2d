"""The study of the policies: what it runs, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from visionpe.cli import scaling
from visionpe.cli import study as command
from visionpe.quickstarts import study
from visionpe.quickstarts.small_vits import small_vits
from visionpe.quickstarts.study_data import QUICKSTART_DATA, STUDY_DATA


def test_the_sweep_of_a_study() -> None:
    args = command.parser().parse_args(["--jobs", "2", "--out", "x"])
    line = study.sweep_command(args, ["run_a", "run_b"], 2)
    assert line[line.index("--runs") + 1 :][:2] == ["run_a", "run_b"]
    assert {"default", "all", "auto", "--launcher", "--nproc-per-node=2", "6x=24"} <= set(line)
    alone = study.sweep_command(command.parser().parse_args(["--jobs", "1", "--quick"]), ["run_a"], 1)
    assert "--launcher" not in alone
    assert alone[alone.index("--limit") + 1] == "24"


@pytest.mark.parametrize("data", list(STUDY_DATA))
def test_its_sweep_is_a_command_of_the_scaling_tool(data: str) -> None:
    for given in ([], ["--quick"]):
        args = command.parser().parse_args(["--data", data, *given])
        line = study.sweep_command(args, ["run_a"], 1)
        options = scaling.parse(line[line.index("scaling") + 1 :])
        assert options.data == data
        assert tuple(options.resolutions) == STUDY_DATA[data].resolutions
        assert tuple(options.protocol) == STUDY_DATA[data].protocols
        assert options.limit == (24 if given else {"digits": 240, "elpv": None, "caltech101": 600}[data])


def test_every_encoding_of_a_study_has_its_configs(tmp_path: Path) -> None:
    for data in STUDY_DATA:
        trainings = small_vits(command.ENCODINGS, seeds=2, data=data, out=tmp_path)
        assert len(trainings) == 16
        assert {training.config.parent.name for training in trainings} == {data}
    for data, quickstart in QUICKSTART_DATA.items():
        assert len(small_vits(quickstart.encodings, seeds=1, data=data, out=tmp_path)) == len(quickstart.encodings)


def test_study_refuses(capsys: pytest.CaptureFixture) -> None:
    assert command.main(["--seeds", "0"]) == 2
    assert "--seeds 0: must be at least 1" in capsys.readouterr().err
    assert command.main(["--encodings", "nope"]) == 2
    assert "--encodings nope: no " in capsys.readouterr().err
    assert command.main(["--executor", "slurm", "--job-options", "timeout_min"]) == 2
    assert "--job-options timeout_min: not KEY=VALUE (such as timeout_min=240)" in capsys.readouterr().err
