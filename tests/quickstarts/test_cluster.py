"""Trainings as jobs of a cluster: submitit runs them here, and a scheduler of three small scripts takes them."""

from __future__ import annotations

import os
import stat
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from visionpe.quickstarts.cluster import ClusterExecutor, Run
from visionpe.quickstarts.trainings import Training, train
from visionpe.utils.errors import InputError

pytest.importorskip("submitit")

FAKE = """
import os, pathlib, sys
work = pathlib.Path(sys.argv[1])
print("threads", os.environ["OMP_NUM_THREADS"], flush=True)
if "fail" in str(work):
    sys.exit("the last words")
(work / "model.safetensors").write_text("")
(work / "model.json").write_text("{}")
"""
# Takes a copy of a job, as whoever hands it in moves the file, runs it in the background and says its number.
SBATCH = """#!/bin/sh
number=$$
export SLURM_JOB_ID=$number SLURM_JOB_NUM_NODES=1 SLURM_NTASKS=1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0
export SLURM_CPUS_PER_TASK=3 SLURM_JOB_NODELIST=here
cp "$1" "{folder}/seen.sh"
sh "{folder}/seen.sh" > "{folder}/job.log" 2>&1 &
echo "Submitted batch job $number"
"""
# Knows of no job any more, and starts what a job asks it to.
SACCT = "#!/bin/sh\necho 'JobID|State|NodeList'\n"
SRUN = """#!/bin/sh
while case "$1" in -*) true;; *) false;; esac; do
  case "$1" in *=* | --unbuffered) shift;; *) shift 2;; esac
done
exec "$@"
"""


class Fake(Training):
    def command(self) -> list[str]:
        return [sys.executable, str(self.config), str(self.directory)]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_text(FAKE)
    return path


@pytest.fixture
def quiet() -> Console:
    return Console(file=open(os.devnull, "w"))


def test_jobs_leave_their_products(tmp_path: Path, script: Path, quiet: Console) -> None:
    runs = [Fake(name, script, tmp_path / name, 0, 2) for name in "ab"]
    train(runs, quiet, at_once=2, interval=0.1, executor=ClusterExecutor(tmp_path / "jobs", cluster="local"))
    assert all(run.finished for run in runs)
    assert runs[0].log.read_text() == "threads 1\n"
    with pytest.raises(InputError, match="training of c ended with exit code 1"):
        train(
            [Fake("c", script, tmp_path / "fail", 0, 2)],
            quiet,
            at_once=1,
            interval=0.1,
            executor=ClusterExecutor(tmp_path / "jobs", cluster="local"),
        )


def test_a_scheduler(tmp_path: Path, script: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    scripts = {"sbatch": SBATCH.format(folder=tmp_path), "sacct": SACCT, "squeue": SACCT, "srun": SRUN, "scancel": SRUN}
    for name, text in scripts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755 | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    options = {"timeout_min": 30, "cpus_per_task": 3, "slurm_partition": "cpu"}
    run = Fake("a", script, tmp_path / "a", 0, 2)
    train([run], quiet, at_once=1, interval=0.1, executor=ClusterExecutor(tmp_path / "jobs", options))
    assert run.log.read_text() == "threads 3\n"
    asked = (tmp_path / "seen.sh").read_text()
    assert "--partition=cpu" in asked
    assert "--cpus-per-task=3" in asked


def test_a_job_is_cancelled(tmp_path: Path) -> None:
    work = ClusterExecutor(tmp_path / "jobs", cluster="local").start(
        [sys.executable, "-c", f"import time; open({str(tmp_path / 'begun')!r}, 'w').close(); time.sleep(300)"],
        tmp_path / "a" / "train.log",
    )
    begin = time.monotonic()
    while not (tmp_path / "begun").exists():
        assert time.monotonic() - begin < 60
        time.sleep(0.05)
    assert work.poll() is None
    work.stop()
    work.join(120)  # on a machine that is busy with other tests
    assert work.poll() not in (None, 0)


def test_a_job_taken_away_is_submitted_again(tmp_path: Path) -> None:
    run = Run((sys.executable, "-c", "raise SystemExit(3)"), tmp_path / "log", tmp_path / "code")
    assert run.checkpoint().function == run
    run()
    assert run.code.read_text() == "3\n"


def test_what_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"--executor slurm: "):
        ClusterExecutor(tmp_path / "jobs")
    with pytest.raises(InputError, match=r"--executor local: .*nonsense"):
        ClusterExecutor(tmp_path / "jobs", {"nonsense": 1}, cluster="local")
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match="install the `cluster` extra"):
        ClusterExecutor(tmp_path / "jobs")
