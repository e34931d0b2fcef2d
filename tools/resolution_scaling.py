"""Accuracy, speed and memory of vision models against input resolution.

Takes any timm model, ours or not, and trained runs of ``tools/train.py``; measures each under several resolution
policies and two protocols, beside controls that bring the image to the trained size.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from scaling import page
from scaling.arguments import fewer, keyword, parser
from scaling.auto import Chooser
from scaling.data import EMBEDDED, Source, open_source
from scaling.errors import InputError, first_line
from scaling.labels import label
from scaling.launch import World, join_world, leave_world
from scaling.markdown import document
from scaling.models import Subject, from_names, from_runs
from scaling.plan import AUTO, Task, choose_policies, plan
from scaling.plot import plot
from scaling.published import published, remarks
from scaling.regret import regrets, verdicts
from scaling.report import device_name, provenance, show, write_csv, write_json
from scaling.sizes import parse_resolution
from scaling.store import Store, write_atomic
from scaling.summary import Row, against_native, summarise
from scaling.sweep import Settings, sweep

FULL_WIDTH = 160  # columns of the full table with names of usual length


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: cannot be used ({first_line(error)})") from None
    return device


def _subjects(args: argparse.Namespace) -> list[Subject]:
    if not (args.model or args.runs):
        raise InputError("nothing to measure: give --model NAME or --runs DIR")
    kwargs = dict(keyword(text) for text in args.model_kwargs)
    subjects = from_names(args.model, args.checkpoint, kwargs, pretrained=args.pretrained, seed=args.seed)
    subjects += from_runs(args.runs)
    label(subjects)
    return subjects


def _check(args: argparse.Namespace, subjects: Sequence[Subject], source: Source) -> None:
    for name in ("batch_size", "limit"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} {value}: must be at least 1")
    if args.auto_images < 2:
        raise InputError(f"--auto-images {args.auto_images}: must be at least 2")
    for name in ("num_workers", "diagnostics"):
        if getattr(args, name) < 0:
            raise InputError(f"--{name.replace('_', '-')} {getattr(args, name)}: must be at least 0")
    if args.crop_pct is not None and not 0 < args.crop_pct <= 1:
        raise InputError(f"--crop-pct {args.crop_pct}: must be above 0 and at most 1")
    if "none" in args.controls and len(args.controls) > 1:
        raise InputError(f"--controls {' '.join(args.controls)}: `none` stands alone")
    for subject in subjects:
        facts = subject.facts
        if facts.classes != source.classes:
            raise InputError(
                f"--data {source.name}: {source.classes} classes, but {subject.label} has num_classes={facts.classes}; "
                "they must match"
            )
        if facts.channels not in (1, 3):
            raise InputError(f"--model {subject.name}: {facts.channels} input channels; allowed: 1 or 3")


def run(args: argparse.Namespace, console: Console) -> list[Row]:
    """Measure everything and write the results.

    Args:
        args: From :func:`parser`.
        console: For tables, notes and the progress bar.

    Returns:
        The lines of the table, as :func:`scaling.summary.summarise` gives them; none in all processes but the first.

    Raises:
        InputError: If an argument cannot be used.
    """
    if args.config:  # OpenMMLab is imported only where it is asked for
        from dense.scaling import run as run_dense

        return run_dense(args, console)
    world = join_world(args.launcher, args.device)
    try:
        return _run(args, console if world.rank == 0 else Console(quiet=True), world)
    finally:
        leave_world(world)


def _run(args: argparse.Namespace, console: Console, world: World) -> list[Row]:
    device = _device(world.device(args.device))
    resolutions = [parse_resolution(text) for text in args.resolutions]
    subjects = _subjects(args)
    known = {subject.data for subject in subjects if subject.data}
    source = open_source(args.data or (known.pop() if len(known) == 1 else EMBEDDED[0]))
    _check(args, subjects, source)
    policies, notes = choose_policies(subjects, args.policy)
    controls = [name for name in args.controls if name != "none"]
    tasks = plan(subjects, policies, args.protocol, resolutions, list(dict.fromkeys(controls)))
    notes += remarks(tasks, source.classes)
    for subject in subjects:
        if subject.checkpoint is None and not subject.pretrained:
            notes.append(f"{subject.label} has random weights: its accuracy means nothing, its cost does")
    for note in notes:
        console.print(f"note: {note}", style="yellow", highlight=False)

    settings = Settings(
        device=device,
        batch_size=args.batch_size,
        amp=args.amp,
        limit=args.limit,
        fewer=tuple(fewer(text) for text in args.fewer),
        seed=args.seed,
        workers=args.num_workers,
        skip_corrupt=args.skip_corrupt,
        fresh=args.fresh,
        crop=args.crop_pct,
        diagnostics=args.diagnostics,
    )
    chooser = _chooser(args, source, settings) if any(task.policy == AUTO for task in tasks) else None
    rows = _measure(tasks, source, settings, args.out, console, world, chooser)
    if world.rank:
        return []
    rows = [row | {"paper": published(task, source.classes)} for task, row in zip(tasks, against_native(rows))]
    lines = summarise(rows)
    arguments = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    write_csv(args.out / "results.csv", rows, lines)
    origin = provenance(arguments, device, subjects)
    choices = regrets(rows)
    write_json(args.out / "results.json", rows, lines, origin, choices)
    title = f"Accuracy against resolution, {source.name}"
    write_atomic(args.out / "results.md", document(lines, title))
    plot(args.out / "resolution.png", lines, title)
    page.write_page(
        args.out / "resolution.html",
        title,
        page.panels(lines),
        table=page.table(lines),
        details={"Settings and provenance": origin},
    )
    narrow = console.width < FULL_WIDTH
    show(console, lines, compact=narrow or args.table == "compact")
    if narrow and args.table == "full":
        console.print(f"(the full table needs {FULL_WIDTH} columns; its figures are in results.csv)", highlight=False)
    for sentence in verdicts(choices):
        console.print(sentence, highlight=False)
    corrupt = sorted({name for row in rows for name in row.get("corrupt", [])})
    if corrupt:
        shown = ", ".join(corrupt[:5]) + (", ..." if len(corrupt) > 5 else "")
        console.print(f"{len(corrupt)} corrupt images left out: {shown}", style="yellow", highlight=False)
    console.print(
        f"written: {args.out}/results.csv, results.json, results.md, resolution.png, resolution.html", highlight=False
    )
    return lines


def _chooser(args: argparse.Namespace, source: Source, settings: Settings) -> Chooser:
    """What chooses policies: by images of the validation split where there is one, else by some of the evaluated."""
    images = open_source(args.auto_data or source.name, "val")
    return Chooser(
        images,
        args.auto_images,
        settings.fewer,
        settings.seed,
        settings.batch_size,
        settings.workers,
        settings.device,
        Store(args.out),
    )


def _measure(
    tasks: Sequence[Task],
    source: Source,
    settings: Settings,
    out: Path,
    console: Console,
    world: World,
    chooser: Chooser | None,
) -> list[Row]:
    """All rows, in the order of ``tasks``; in processes but the first their own alone."""
    mine = world.share([task.pixels for task in tasks])
    own = [tasks[i] for i in mine]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    reused: list[bool] = []
    with Progress(*columns, console=console, transient=True) as progress:
        # Pixels, not rows, so that the time left is right when the large sizes come last.
        bar = progress.add_task("measuring", total=sum(task.pixels for task in own))

        def advance(task: Task, stored: bool) -> None:
            reused.append(stored)
            progress.update(bar, advance=task.pixels, description=f"{task.subject.label}, {task.policy}")

        rows = list(sweep(own, source, settings, Store(out), device_name(settings.device), advance, chooser))
    every = [item for _, item in sorted(world.gather(dict(zip(mine, zip(rows, reused)))).items())]
    console.print(f"{len(every)} rows, {sum(stored for _, stored in every)} of them already finished", highlight=False)
    return [row for row, _ in every]


def make_console() -> Console:
    """A console that is wide enough for the tables where the output is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=FULL_WIDTH)


def main(argv: Sequence[str] | None = None) -> int:
    """The program.

    Args:
        argv: Arguments, or None for those of the process.

    Returns:
        The exit code: 0, 2 for input that cannot be used, 130 when interrupted.
    """
    try:
        run(parser().parse_args(argv), make_console())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: finished rows are kept, the same command goes on from there", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
