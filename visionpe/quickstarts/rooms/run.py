"""Tiny models that label rooms, one an encoding: mIoU against minutes of training, and rooms to turn."""

from __future__ import annotations

import argparse
import sys

from rich.console import Console

from visionpe.detection.running.runner import load_config
from visionpe.quickstarts.rooms import report
from visionpe.quickstarts.rooms.curve import read_curve
from visionpe.quickstarts.rooms.evaluation import draw, measure
from visionpe.quickstarts.rooms.plot import plot
from visionpe.quickstarts.trainings import Training, train
from visionpe.utils.configs import config_root
from visionpe.utils.errors import InputError

CONFIGS = config_root() / "rooms"
NAMES = {"swin3d": "Swin3D", "ptv3": "Point Transformer V3"}


def run(args: argparse.Namespace) -> None:
    """Do what is not done yet, and say what came out.

    Args:
        args: Of ``visionpe quickstart rooms``, see :mod:`visionpe.cli.quickstart`.

    Raises:
        visionpe.utils.errors.InputError: If an argument cannot be used or a training fails.
    """
    console = Console(width=None if sys.stdout.isatty() else 120, markup=False)
    for name, least in (("jobs", 1), ("epochs", 1), ("seed", 0)):
        if (value := getattr(args, name)) is not None and value < least:
            raise InputError(f"--{name} {value}: must be at least {least}")
    start = f"{args.backbone}_tiny_"
    known = sorted(path.stem.removeprefix(start) for path in CONFIGS.glob(f"{start}*.py"))
    trainings = {}
    for encoding in dict.fromkeys(args.encodings):
        if encoding not in known:
            raise InputError(
                f"--encodings {encoding}: no configs/rooms/{start}{encoding}.py; allowed: {', '.join(known)}"
            )
        config = CONFIGS / f"{start}{encoding}.py"
        epochs = args.epochs or load_config(str(config)).train_cfg.max_epochs
        name = encoding if args.backbone == "swin3d" else f"{args.backbone}_{encoding}"
        directory = args.out.resolve() / f"{name}_seed{args.seed}_{epochs}epochs"
        options = (f"train_cfg.max_epochs={epochs}",) if args.epochs else ()
        trainings[encoding] = Training(encoding, config, directory, args.seed, epochs, options, exported=False)
    train(list(trainings.values()), console, at_once=args.jobs)
    rows, curves = [], []
    for encoding, training in trainings.items():
        curves.append(read_curve(encoding, training.directory))
        minutes = curves[-1].minutes[-1] if curves[-1].minutes else float("nan")
        rows.append({"encoding": encoding, "minutes": minutes, **measure(training)})
    plot(args.out / "miou.png", curves, NAMES[args.backbone])
    files = [args.out / "miou.png", *report.write(rows, curves, args.out)]
    files += draw(trainings, args.out)
    report.show(rows, console)
    console.print(f"written: {', '.join(map(str, files))}", highlight=False, soft_wrap=True)
