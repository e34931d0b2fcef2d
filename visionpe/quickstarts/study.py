"""Train small, run large: what every resolution policy does for eight encodings."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence

from rich.console import Console

from visionpe.quickstarts.cluster import ClusterExecutor
from visionpe.quickstarts.executors import Executor
from visionpe.quickstarts.small_vits import small_vits
from visionpe.quickstarts.study_data import STUDY_DATA
from visionpe.quickstarts.trainings import train
from visionpe.scaling.change_plot import draw_change
from visionpe.scaling.policy_plot import draw_panels
from visionpe.utils.children import end_with_parent
from visionpe.utils.console import wide_console
from visionpe.utils.errors import IncompleteError, InputError, check_counts

INTERVAL = 2.0  # seconds between two looks at a job


def sweep_command(args: argparse.Namespace, runs: Sequence[str], jobs: int) -> list[str]:
    """The command that measures everything, in so many processes."""
    study = STUDY_DATA[args.data]
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={jobs}"] if jobs > 1 else []
    command = [sys.executable, *launch, "-m", "visionpe", "scaling", *(("--launcher", "pytorch") if launch else ())]
    command += ["--runs", *runs, "--data", args.data, "--resolutions", *(args.resolutions or study.resolutions)]
    command += ["--protocol", *study.protocols, "--policy", "default", "all", "auto"]
    command += [*(study.quick if args.quick else study.options), "--device", args.device]
    return [*command, "--out", str(args.out), "--table", "compact"]


def _measure(command: list[str], args: argparse.Namespace, executor: Executor | None, console: Console) -> int:
    """Run the sweep, here or as a job: its exit code."""
    if executor is None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, env=environment, check=False, preexec_fn=end_with_parent()).returncode
    log = args.out / "sweep.log"
    work = executor.start(command, log)
    try:
        with console.status(f"measuring as a job, see {log}"):
            while (code := work.poll()) is None:
                time.sleep(INTERVAL)
    except BaseException:
        work.stop()
        raise
    console.print(log.read_text(errors="replace") if log.is_file() else "", highlight=False, markup=False)
    return code


def run(args: argparse.Namespace) -> None:
    """Train what is missing, measure what is missing, draw.

    Args:
        args: Of ``visionpe study``, see :mod:`visionpe.cli.study`.

    Raises:
        visionpe.utils.errors.InputError: If an argument cannot be used, a training or the sweep fails.
    """
    start, console = time.monotonic(), wide_console()
    check_counts(args, "seeds", "jobs", "epochs")
    trainings = small_vits(args.encodings, seeds=args.seeds, data=args.data, out=args.out, epochs=args.epochs)
    executor = None if args.executor == "local" else ClusterExecutor(args.out / "jobs", args.job_options, args.executor)
    train(trainings, console, at_once=args.jobs, executor=executor)
    trained = time.monotonic()
    # A job has the cores that it asked for, and one process of as many threads.
    command = sweep_command(args, [str(training.directory) for training in trainings], 1 if executor else args.jobs)
    code = _measure(command, args, executor, console)
    if code not in (0, 1):
        raise InputError(f"the sweep ended with exit code {code}; the same command goes on from there")
    results = json.loads((args.out / "results.json").read_text())
    protocols = STUDY_DATA[args.data].protocols
    for protocol in protocols:
        draw_panels(args.out / f"panels_{protocol}.png", results["summary"], protocol)
        draw_change(args.out / f"change_{protocol}.png", results["summary"], protocol)
    console.print(f"written: {args.out}/{{panels,change}}_{{{','.join(protocols)}}}.png", highlight=False)
    seconds = trained - start, time.monotonic() - trained
    console.print(f"training {seconds[0]:.0f} s, evaluation {seconds[1]:.0f} s", style="dim", highlight=False)
    if code:
        raise IncompleteError("some rows failed; the same command tries them again")
