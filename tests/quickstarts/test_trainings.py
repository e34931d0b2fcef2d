"""Trainings of a quickstart: several at once, each done once, and one that fails."""

from __future__ import annotations

import os
import sys

import pytest
from rich.console import Console

from visionpe.utils.errors import InputError

FAKE = """
import json, pathlib, sys
work = pathlib.Path(sys.argv[sys.argv.index("--work-dir") + 1])
scalars = work / "20260101_000000" / "vis_data" / "scalars.json"
scalars.parent.mkdir(parents=True, exist_ok=True)
scalars.write_text('{"loss": 2.5, "epoch": 1}\\n{"loss": 1.5, "epoch": 2}\\n{"lo')
print("started")
if "fail" in str(work):
    sys.exit("the last words")
(work / "model.safetensors").write_text("")
(work / "model.json").write_text("{}")
"""


def test_trainings(tmp_path, monkeypatch):
    from visionpe.quickstarts.trainings import Training, train

    script = tmp_path / "train.py"
    script.write_text(FAKE)
    starts = []

    def command(self):
        starts.append(self.name)
        return [sys.executable, str(script), "--work-dir", str(self.directory)]

    monkeypatch.setattr(Training, "command", command)
    console = Console(file=open(os.devnull, "w"))  # noqa: SIM115
    runs = [Training(name, script, tmp_path / name, 0, 2) for name in "abc"]
    train(runs, console, at_once=2, interval=0.02)
    assert starts == ["a", "b", "c"]
    assert runs[0].done() == (2, 1.5)
    train(runs, console, at_once=2, interval=0.02)
    assert starts == ["a", "b", "c"]

    with (
        console.capture() as shown,
        pytest.raises(InputError, match=r"training of d ended with exit code 1.*train\.log"),
    ):
        train([Training("d", script, tmp_path / "fail", 0, 2)], console, at_once=2, interval=0.02)
    assert "the last words" in shown.get()


def test_training_command(tmp_path):
    from visionpe.quickstarts.trainings import Training

    command = Training("a", tmp_path / "c.py", tmp_path / "w", 3, 2, ("train_cfg.max_epochs=2",)).command()
    assert command[1:4] == ["-m", "visionpe", "train"]
    assert command[4:] == [
        *(str(tmp_path / "c.py"), "--work-dir", str(tmp_path / "w"), "--resume", "--seed", "3"),
        *("--cfg-options", "train_cfg.max_epochs=2"),
    ]
