"""From nothing to a trained model, its numbers and drawn predictions: scenes, training, evaluation, drawing."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dense.tasks import Task
from scaling.program import cores, exit_code


def parser(task: Task, description: str | None) -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog=f"quickstart_{task.name}.py",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "--encodings",
        nargs="+",
        default=list(task.encodings),
        metavar="NAME",
        help=f"those with a configs/digits/{task.prefix}_<name>_vit.py (default: {' '.join(task.encodings)})",
    )
    p.add_argument(
        "--scales",
        nargs="+",
        type=float,
        default=[1.0],
        metavar="X",
        help="test scales, such as 0.75 1 1.5 2 (default: 1)",
    )
    p.add_argument(
        "--data",
        type=Path,
        default=Path("data/digit_scenes"),
        metavar="DIR",
        help="digit scenes, written if missing (default: %(default)s)",
    )
    out = Path(f"work_dirs/quickstart_{task.name}")
    p.add_argument("--out", type=Path, default=out, metavar="DIR", help="(default: %(default)s)")
    p.add_argument(
        "--jobs", type=int, default=cores(), metavar="N", help="trainings at once (default: cores, %(default)s)"
    )
    p.add_argument("--iters", type=int, metavar="N", help="stop after N iterations of the schedule, to try things out")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="(default: %(default)s)")
    return p


def _write_scenes(data: Path, console: Any) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from scaling.errors import InputError
    from visionpe.detection.scenes import SceneSettings, write_scenes, written

    if written(data) is not None:
        return
    settings = SceneSettings()
    columns = (TextColumn("digit scenes"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=settings.train + settings.val)
        try:
            write_scenes(data, settings, lambda: progress.advance(bar))
        except FileExistsError as error:
            raise InputError(f"--data: {error}") from None


def _measure(trainings: Sequence[Any], args: argparse.Namespace, task: Task, console: Any) -> list[dict[str, Any]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from dense.evaluation import measure

    rows = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # The console keeps its file while what mmengine prints goes to a log.
    with Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False) as progress:
        bar = progress.add_task("evaluation", total=len(trainings) * len(args.scales))
        for encoding, training in trainings:
            for scale in args.scales:
                progress.update(bar, description=f"evaluation, {encoding} at {scale:g}x")
                metrics = measure(training, task.options(args.data), scale)
                numbers = {name: read(metrics) for name, read in task.columns.items()}
                rows.append({"encoding": encoding, "scale": scale, **numbers})
                progress.advance(bar)
    return rows


def run(args: argparse.Namespace, task: Task) -> list[dict[str, Any]]:
    """Do what is not done yet, and say what came out.

    Args:
        args: From :func:`parser`.
        task: The task.

    Returns:
        The rows of the table.

    Raises:
        scaling.errors.InputError: If an argument cannot be used or a training fails.
    """
    # After parsing: these imports take seconds, --help should not.
    from rich.console import Console

    from dense import report
    from dense.evaluation import draw
    from scaling.errors import InputError
    from scaling.trainings import Training, train
    from visionpe.detection.runner import load_config

    start = time.monotonic()
    width = None if sys.stdout.isatty() else 120
    console = Console(file=sys.stdout, width=width)
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


def main(task: Task, description: str | None, argv: Sequence[str] | None = None) -> int:
    """The program.

    Args:
        task: The task.
        description: For ``--help``.
        argv: Arguments, or None for those of the process.

    Returns:
        The exit code: 0, 2 for input that cannot be used or a failed training, 130 when interrupted.
    """
    args = parser(task, description).parse_args(argv)
    # More threads than cores that are free make a training ten times slower.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return exit_code(lambda: run(args, task))
