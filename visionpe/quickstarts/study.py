"""Train small, run large: what every resolution policy does for eight encodings."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence

from visionpe.quickstarts.digit_trainings import digit_trainings
from visionpe.quickstarts.trainings import train
from visionpe.scaling.options import PROTOCOLS
from visionpe.scaling.policy_plot import draw_panels
from visionpe.utils.children import end_with_parent
from visionpe.utils.console import wide_console
from visionpe.utils.errors import IncompleteError, InputError, check_counts

# 1,296 tokens at 6x cost a hundred times as much as 36: fewer images there, and wider intervals.
IMAGES = ("--limit", "240", "--limit-from", "3x=120", "4x=48", "6x=24", "--auto-images", "48", "--diagnostics", "2")


def sweep_command(args: argparse.Namespace, runs: Sequence[str]) -> list[str]:
    """The command that measures everything, in as many processes as there are jobs."""
    images = ("--limit", "24", "--auto-images", "12", "--diagnostics", "2") if args.quick else IMAGES
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={args.jobs}"] if args.jobs > 1 else []
    command = [sys.executable, *launch, "-m", "visionpe", "scaling", *(("--launcher", "pytorch") if launch else ())]
    command += ["--runs", *runs, "--data", "digits", "--device", "cpu", "--resolutions", *args.resolutions]
    command += ["--policy", "default", "all", "auto", "--batch-size", "12", *images]
    return [*command, "--out", str(args.out), "--table", "compact"]


def run(args: argparse.Namespace) -> None:
    """Train what is missing, measure what is missing, draw.

    Args:
        args: Of ``visionpe study``, see :mod:`visionpe.cli.study`.

    Raises:
        visionpe.utils.errors.InputError: If an argument cannot be used, a training or the sweep fails.
    """
    start, console = time.monotonic(), wide_console()
    check_counts(args, "seeds", "jobs", "epochs")
    trainings = digit_trainings(args.encodings, seeds=args.seeds, data="digits", out=args.out, epochs=args.epochs)
    train(trainings, console, at_once=args.jobs)
    trained = time.monotonic()
    command = sweep_command(args, [str(training.directory) for training in trainings])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    code = subprocess.run(command, env=environment, check=False, preexec_fn=end_with_parent()).returncode
    if code not in (0, 1):
        raise InputError(f"the sweep ended with exit code {code}; the same command goes on from there")
    results = json.loads((args.out / "results.json").read_text())
    for protocol in PROTOCOLS:
        draw_panels(args.out / f"panels_{protocol}.png", results["summary"], protocol)
    console.print(f"written: {args.out}/panels_{{{','.join(PROTOCOLS)}}}.png", highlight=False)
    seconds = trained - start, time.monotonic() - trained
    console.print(f"training {seconds[0]:.0f} s, evaluation {seconds[1]:.0f} s", style="dim", highlight=False)
    if code:
        raise IncompleteError("some rows failed; the same command tries them again")
