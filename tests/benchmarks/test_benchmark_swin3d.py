"""The benchmark of attention among voxels: the formulations agree, files are written, bad input is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from visionpe.benchmarks import voxels as benchmark_voxels
from visionpe.benchmarks.voxel_attention import FLAT, FORMS, LOOP, OURS, Problem
from visionpe.benchmarks.voxel_report import growth, least_ratios
from visionpe.benchmarks.voxel_scenes import room
from visionpe.benchmarks.voxel_timing import Task, _peak, measure_seconds
from visionpe.cli import benchmark


def test_room() -> None:
    coords, signals = room(1500)
    assert coords.shape == (1500, 4)
    assert len(coords.unique(dim=0)) == 1500
    assert torch.equal(signals[:, :3].floor().long(), coords[:, 1:])
    assert signals[:, 3:].abs().max() <= 1
    again = room(1500)
    assert torch.equal(again[0], coords)
    assert torch.equal(again[1], signals)
    assert not torch.equal(room(1500, seed=1)[0], coords)


def test_formulations_agree() -> None:
    problem = Problem.draw(*(t[:300] for t in room(1000)), heads=2, dim=4)
    wanted = None
    for form, prepare in FORMS.items():
        out = prepare(problem)()
        assert out.shape == (300, 2, 4)
        found = [out, *torch.autograd.grad(out.square().sum(), problem.leaves)]
        wanted = found if wanted is None else wanted
        for got, right in zip(found, wanted):
            assert (got - right).abs().max() <= 1e-4 * right.abs().max(), form


def test_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(benchmark_voxels, "peak_mib", lambda task, form: (10.0 * (1 + list(FORMS).index(form)), "ok"))
    arguments = [
        "--voxels",
        "1200",
        "1000",
        "--loop-up-to",
        "1100",
        "--repeats",
        "1",
        "--heads",
        "1",
        "--head-dim",
        "2",
    ]
    assert benchmark.swin3d([*arguments, "--device", "cpu", "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "swin3d_attention.json").read_text())
    rows = written["rows"]
    assert [(row["voxels"], row["form"]) for row in rows] == [
        *((1000, form) for form in (OURS, FLAT, LOOP)),
        *((1200, form) for form in (OURS, FLAT)),
    ]
    assert [row["peak_ratio"] for row in rows] == [1, 2, 3, 1, 2]
    assert all(row["forward"] > 0 and row["backward"] > 0 and row["difference"] < 1e-4 for row in rows)
    assert rows[0]["forward_ratio"] == rows[0]["backward_ratio"] == 1
    assert rows[0]["pairs"] > 1000 * 5
    assert written["torch"] == torch.__version__
    text = (tmp_path / "swin3d_attention.md").read_text()
    assert "| room | 1,000 |" in text
    assert "loop over windows, times ours at least" in text
    assert f"threads {torch.get_num_threads()}." in text
    assert (tmp_path / "swin3d_attention.png").read_bytes().startswith(b"\x89PNG")
    assert "ours grows as forward N^" in capsys.readouterr().out


def test_growth_and_ratios() -> None:
    base = {"scene": "room", "backward": 0.5, "peak_mib": None, "backward_ratio": 3.0, "peak_ratio": None}
    rows = [
        {**base, "form": form, "voxels": n, "forward": n**power, "forward_ratio": ratio}
        for form, power, ratio in ((OURS, 1.0, 1.0), (FLAT, 1.5, 4.0))
        for n in (100, 400, 900)
    ]
    rows[-1]["forward_ratio"] = 3.5
    assert growth(rows) == [
        "ours grows as forward N^1.00, backward N^0.00",
        "flat pairs grows as forward N^1.50, backward N^0.00",
    ]
    assert least_ratios(rows) == ["flat pairs, times ours at least: forward 3.50, backward 3.00"]


def test_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(problem: Problem) -> object:
        def call() -> None:
            raise MemoryError("std::bad_alloc")

        return call

    monkeypatch.setitem(FORMS, FLAT, greedy)
    task = Task(1000, 1, 2, "cpu", 1)
    ours, flat = measure_seconds(task, (OURS, FLAT), 1)
    assert (ours["status"], flat["status"]) == ("ok", "out of memory")
    assert flat["forward"] is flat["backward_ratio"] is flat["difference"] is None
    assert _peak(Task(1000, 1, 2, "cpu", torch.get_num_threads()), OURS)[1] == "ok"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--voxels", "10"], "--voxels 10: must be at least 1000"),
        (["--heads", "0"], "--heads 0: must be at least 1"),
        (["--threads", "-1"], "--threads -1: must be at least 1"),
        (["--device", "nowhere"], "--device nowhere: "),
    ],
)
def test_bad_input(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.swin3d(arguments) == 2
    assert message in capsys.readouterr().err
