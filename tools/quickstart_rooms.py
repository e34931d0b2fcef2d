"""From nothing to a tiny Swin3D that labels rooms, in minutes on a CPU: mIoU against minutes, a page to turn.

Builds labelled rooms, trains one model for each position encoding, tests it on rooms of their own, and leaves a plot,
a table, a CSV, a JSON, and a page with a room that can be turned: its colours, labels and predictions. Finished work is
kept: running it again resumes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from scaling.program import cores, exit_code

ENCODINGS = ("crse", "rope_mixed", "none")
CONFIG = "configs/rooms/swin3d_tiny_{}.py"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--encodings", nargs="+", default=list(ENCODINGS), metavar="NAME", help=f"(default: {' '.join(ENCODINGS)})"
    )
    p.add_argument("--out", type=Path, default=Path("work_dirs/quickstart_rooms"), metavar="DIR")
    p.add_argument("--jobs", type=int, default=cores(), metavar="N", help="trainings at once (default: %(default)s)")
    p.add_argument("--epochs", type=int, metavar="N", help="stop after N epochs of the schedule, to try things out")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="(default: %(default)s)")
    return p


def run(args: argparse.Namespace) -> None:
    """Do what is not done yet, and say what came out.

    Raises:
        scaling.errors.InputError: If an argument cannot be used or a training fails.
    """
    # After parsing: these imports take seconds, --help should not.
    from rich.console import Console

    from rooms import report
    from rooms.curve import read_curve
    from rooms.evaluation import draw, measure
    from rooms.plot import plot
    from scaling.errors import InputError
    from scaling.trainings import Training, train
    from visionpe.detection.runner import load_config

    console = Console(width=None if sys.stdout.isatty() else 120)
    for name, least in (("jobs", 1), ("epochs", 1), ("seed", 0)):
        if (value := getattr(args, name)) is not None and value < least:
            raise InputError(f"--{name} {value}: must be at least {least}")
    known = sorted(path.stem.removeprefix("swin3d_tiny_") for path in Path("configs/rooms").glob("swin3d_tiny_*.py"))
    trainings = {}
    for encoding in dict.fromkeys(args.encodings):
        if encoding not in known:
            raise InputError(f"--encodings {encoding}: no {CONFIG.format(encoding)}; allowed: {', '.join(known)}")
        config = Path(CONFIG.format(encoding))
        epochs = args.epochs or load_config(str(config)).train_cfg.max_epochs
        directory = args.out.resolve() / f"{encoding}_seed{args.seed}_{epochs}epochs"
        options = (f"train_cfg.max_epochs={epochs}",) if args.epochs else ()
        trainings[encoding] = Training(encoding, config, directory, args.seed, epochs, options, exported=False)
    train(list(trainings.values()), console, at_once=args.jobs)
    rows, curves = [], []
    for encoding, training in trainings.items():
        curves.append(read_curve(encoding, training.directory))
        minutes = curves[-1].minutes[-1] if curves[-1].minutes else float("nan")
        rows.append({"encoding": encoding, "minutes": minutes, **measure(training)})
    plot(args.out / "miou.png", curves)
    files = [args.out / "miou.png", *report.write(rows, curves, args.out)]
    files += draw(trainings, args.out)
    report.show(rows, console)
    console.print(f"written: {', '.join(map(str, files))}", highlight=False, soft_wrap=True)


def main(argv: Sequence[str] | None = None) -> int:
    """The program: exit code 0, 2 for input that cannot be used or a failed training, 130 when interrupted."""
    args = parser().parse_args(argv)
    # More threads than cores that are free make a training ten times slower.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return exit_code(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
