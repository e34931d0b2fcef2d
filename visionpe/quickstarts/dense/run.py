"""From nothing to a trained model, its numbers and drawn predictions: scenes, training, evaluation, drawing."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from visionpe.data.digit_scenes.writing import SceneSettings, write_scenes, written
from visionpe.detection.running.runner import load_config
from visionpe.quickstarts.dense import report
from visionpe.quickstarts.dense.evaluation import draw, measure
from visionpe.quickstarts.dense.tasks import TASKS, Task
from visionpe.quickstarts.trainings import Training, train
from visionpe.utils.errors import InputError
from visionpe.utils.progress import SteadyProgress


def _write_scenes(data: Path, console: Console) -> None:
    if written(data) is not None:
        return
    settings = SceneSettings()
    with SteadyProgress(console=console) as progress:
        bar = progress.add_task("digit scenes", total=settings.train + settings.val)
        try:
            write_scenes(data, settings, lambda: progress.advance(bar))
        except FileExistsError as error:
            raise InputError(f"--data: {error}") from None


def _measure(trainings: Sequence[Any], args: argparse.Namespace, task: Task, console: Console) -> list[dict[str, Any]]:
    rows = []
    # The console keeps its file while what mmengine prints goes to a log.
    with SteadyProgress(console=console, redirect_stdout=False, redirect_stderr=False) as progress:
        bar = progress.add_task("evaluation", total=len(trainings) * len(args.scales))
        for encoding, training in trainings:
            for scale in args.scales:
                progress.update(bar, description=f"evaluation, {encoding} at {scale:g}x")
                metrics = measure(training, task.options(args.data), scale)
                numbers = {name: read(metrics) for name, read in task.columns.items()}
                rows.append({"encoding": encoding, "scale": scale, **numbers})
                progress.advance(bar)
    return rows


def run(args: argparse.Namespace, name: str) -> list[dict[str, Any]]:
    """Do what is not done yet, and say what came out.

    Args:
        args: Of ``visionpe quickstart``, see :mod:`visionpe.cli.quickstart`.
        name: ``detection`` or ``segmentation``.

    Returns:
        The rows of the table.

    Raises:
        visionpe.utils.errors.InputError: If an argument cannot be used or a training fails.
    """
    start, task = time.monotonic(), TASKS[name]
    width = None if sys.stdout.isatty() else 120
    console = Console(file=sys.stdout, width=width, markup=False)
    for name, least in (("jobs", 1), ("iters", 1), ("seed", 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise InputError(f"--{name} {value}: must be at least {least}")
    if min(args.scales) <= 0:
        raise InputError(f"--scales {min(args.scales):g}: must be above 0")
    options, trainings = task.options(args.data), []
    for encoding in dict.fromkeys(args.encodings):
        if encoding not in task.known():
            raise InputError(f"--encodings {encoding}: no {task.config(encoding)}; allowed: {', '.join(task.known())}")
        config = task.config(encoding)
        iters = args.iters or load_config(str(config)).train_cfg.max_iters
        directory = args.out.resolve() / f"{encoding}_seed{args.seed}_{iters}iters"
        given = [f"{key}={value}" for key, value in options.items()]
        given += [f"train_cfg.max_iters={iters}"] if args.iters else []
        label = f"{task.prefix} with {encoding}"
        training = Training(label, config, directory, args.seed, iters, tuple(given), unit="iter")
        trainings.append((encoding, training))

    _write_scenes(args.data, console)
    ready = time.monotonic()
    train([training for _, training in trainings], console, at_once=args.jobs)
    trained = time.monotonic()
    rows = _measure(trainings, args, task, console)
    sheet = args.out / "predictions.png"
    draw(task, [training for _, training in trainings], options, sheet)

    arguments = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    seconds = {"scenes": ready - start, "training": trained - ready, "evaluation": time.monotonic() - trained}
    files = report.write(task, rows, args.out, {"arguments": arguments, "seconds": seconds})
    report.show(task, rows, console)
    for sentence in report.closing(task, rows):
        console.print(f"• {sentence}", highlight=False)
    console.print(f"written: {', '.join(map(str, [*files, sheet]))}", highlight=False, soft_wrap=True)
    console.print(", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()), style="dim", highlight=False)
    return rows
