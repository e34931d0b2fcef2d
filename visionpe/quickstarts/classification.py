"""Small ViTs on real photographs or digits, one an encoding, and their accuracy against the resolution."""

from __future__ import annotations

import argparse
import time

from visionpe.quickstarts.small_vits import small_vits
from visionpe.quickstarts.study_data import QUICKSTART_DATA
from visionpe.quickstarts.trainings import train
from visionpe.scaling.conclusions import conclusions
from visionpe.scaling.models import from_runs
from visionpe.scaling.options import DEFAULT, StudyOptions
from visionpe.scaling.study import run as run_study
from visionpe.utils.console import wide_console
from visionpe.utils.errors import check_counts

# A model runs under those of them that apply to it; `none` has nothing to adapt and runs as built.
POLICIES = ("bicubic", "extrapolate", "interpolate")


def run(args: argparse.Namespace) -> None:
    """Train what is missing, evaluate, and say what came out.

    Args:
        args: Of ``visionpe quickstart``, see :mod:`visionpe.cli.quickstart`.

    Raises:
        visionpe.utils.errors.InputError: If an argument cannot be used or a training fails.
    """
    start = time.monotonic()
    console = wide_console()
    check_counts(args, "seeds", "jobs", "epochs", "limit")
    quickstart = QUICKSTART_DATA[args.data]
    encodings = args.encodings or quickstart.encodings
    trainings = small_vits(encodings, seeds=args.seeds, data=args.data, out=args.out, epochs=args.epochs)
    train(trainings, console, at_once=args.jobs)
    trained = time.monotonic()

    runs = [str(training.directory) for training in trainings]
    applicable = {name for entry in from_runs(runs) for name in entry.info.policies}
    policies = args.policy or [name for name in POLICIES if name in applicable] or [DEFAULT]
    options = StudyOptions(
        runs=runs,
        data=args.data,
        resolutions=list(quickstart.resolutions),
        protocol=list(quickstart.protocols),
        policy=policies,
        limit=args.limit,
        out=args.out,
        table="compact",
    )
    lines = run_study(options, console)
    for sentence in conclusions(lines):
        console.print(f"• {sentence}", highlight=False)
    seconds = trained - start, time.monotonic() - trained
    console.print(f"training {seconds[0]:.0f} s, evaluation {seconds[1]:.0f} s", style="dim", highlight=False)
