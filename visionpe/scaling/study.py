"""The resolution study: every model, policy, protocol and resolution measured, and the results written."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from visionpe.scaling import page
from visionpe.scaling.auto import PolicyChooser
from visionpe.scaling.class_map import check_order
from visionpe.scaling.images import Source
from visionpe.scaling.labels import assign_labels
from visionpe.scaling.markdown import document
from visionpe.scaling.models import ModelEntry, from_names, from_runs
from visionpe.scaling.open_images import check_outside, open_source
from visionpe.scaling.options import AUTO, EMBEDDED, METRICS, NATIVE, StudyOptions
from visionpe.scaling.plan import Task, choose_policies, plan
from visionpe.scaling.plot import plot
from visionpe.scaling.probed import probed
from visionpe.scaling.processes import Processes, join_processes, leave_processes
from visionpe.scaling.published import published, published_notes
from visionpe.scaling.regret import describe_choices, regrets
from visionpe.scaling.report import provenance, show, write_csv, write_json
from visionpe.scaling.sizes import parse_factor_limit, parse_resolution
from visionpe.scaling.store import Store
from visionpe.scaling.summary import Row, against_native, summarise
from visionpe.scaling.sweep import FAILED, Settings, sweep
from visionpe.utils.console import FULL_WIDTH
from visionpe.utils.device import default_device, device_name, open_device
from visionpe.utils.errors import IncompleteError, InputError, check_seed
from visionpe.utils.files import write_atomic
from visionpe.utils.locks import locked
from visionpe.utils.progress import SteadyProgress


def _named_entries(options: StudyOptions) -> list[ModelEntry]:
    if not (options.model or options.runs):
        raise InputError("nothing to measure: give --model NAME or --runs DIR")
    entries = from_names(
        options.model, options.checkpoint, options.model_kwargs, pretrained=options.pretrained, seed=options.seed
    )
    entries += from_runs(options.runs)
    if options.trained_size is not None:
        trained = parse_resolution(options.trained_size, "--trained-size")
        if trained.size is None:
            raise InputError(f"--trained-size {options.trained_size}: allowed: pixels, 224 or HEIGHTxWIDTH")
        for entry in entries:
            entry.trained = trained.size
    return entries


def _check(options: StudyOptions, entries: Sequence[ModelEntry], source: Source) -> None:
    for name in ("batch_size", "limit"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} {value}: must be at least 1")
    check_seed(options.seed)
    for name in ("crop", "cfg_options"):
        if given := getattr(options, name):
            raise InputError(f"--{name.replace('_', '-')} {' '.join(given)}: goes with --config")
    if options.auto_images < 2:
        raise InputError(f"--auto-images {options.auto_images}: must be at least 2")
    for name in ("num_workers", "diagnostics"):
        if getattr(options, name) < 0:
            raise InputError(f"--{name.replace('_', '-')} {getattr(options, name)}: must be at least 0")
    if options.crop_pct is not None and not 0 < options.crop_pct <= 1:
        raise InputError(f"--crop-pct {options.crop_pct}: must be above 0 and at most 1")
    if options.metric not in (None, *METRICS):
        raise InputError(f"--metric {options.metric}: allowed: {', '.join(METRICS)}")
    if "none" in options.controls and len(options.controls) > 1:
        raise InputError(f"--controls {' '.join(options.controls)}: `none` stands alone")
    for entry in entries:
        info = entry.info
        # A class map may leave out the last classes of a model.
        fits = source.classes <= info.classes if options.class_map else source.classes == info.classes
        if not fits:
            raise InputError(
                f"--data {source.name}: {source.classes} classes, but {entry.label} has num_classes={info.classes}; "
                "they must match"
            )
        check_order(entry, source)
        if info.channels not in (1, 3):
            raise InputError(f"--model {entry.name}: {info.channels} input channels; allowed: 1 or 3")
        if NATIVE in options.protocol and not (info.mixes and info.patch):
            raise InputError(
                f"--native: {entry.label} takes images of one size at a time; allowed: ViTs (vit_*, vitdet_*, and "
                "timm's, adapted)"
            )
    if NATIVE in options.protocol and AUTO in options.policy:
        raise InputError("--policy auto: is chosen for one size of images, which --native has not; allowed: names")


@dataclass
class Results:
    """What was measured.

    Args:
        rows: One a run, as :func:`visionpe.scaling.sweep.sweep` gives them.
        lines: One a group of training seeds, as :func:`visionpe.scaling.summary.summarise` gives them.
        choices: What ``auto`` chose, and how good that was.
        provenance: Where the numbers came from.
        data: Name of the images.
    """

    rows: list[Row]
    lines: list[Row]
    choices: list[Row]
    provenance: dict[str, Any]
    data: str

    @property
    def as_timm_built_them(self) -> list[str]:
        """Of the models that run as timm built them, which and why."""
        told = {each["label"]: each.get("as_timm_built_it") for each in self.provenance["models"]}
        return [f"{label} runs as timm built it ({why})" for label, why in told.items() if why]


def run(options: StudyOptions, console: Console) -> list[Row]:
    """Measure everything and write the results below ``options.out``.

    Args:
        options: What to measure, and how.
        console: For tables, notes and the progress bar.

    Returns:
        The lines of the table, as :func:`visionpe.scaling.summary.summarise` gives them; none in all processes but the
        first.

    Raises:
        InputError: If an option cannot be used.
        IncompleteError: If rows failed, by no refusal of a model; everything was written, and running it again tries
            them again.
    """
    for flag, data in (("--data", options.data), ("--auto-data", options.auto_data)):
        check_outside(options.out, flag, data)
    processes = join_processes(options.launcher, options.device or default_device())
    try:
        console = console if processes.rank == 0 else Console(quiet=True, markup=False)
        with locked(options.out, "resolution study") if processes.rank == 0 else nullcontext():
            results = measure_entries(_named_entries(options), options, console, processes)
    finally:
        leave_processes(processes)
    if results is None:
        return []
    write(results, options.out)
    report(results, options, console)
    failed = [row for row in results.rows if row["status"] == FAILED and not row.get("refused")]
    if failed:
        raise IncompleteError(f"{len(failed)} of {len(results.rows)} rows failed; the same command tries them again")
    return results.lines


def measure_entries(
    entries: list[ModelEntry], options: StudyOptions, console: Console, processes: Processes | None = None
) -> Results | None:
    """Measure some models.

    Args:
        entries: The models.
        options: All else that ``options`` says; finished rows are kept below ``options.out``.
        console: For notes and the progress bar.
        processes: With which the rows are shared.

    Returns:
        What was measured; None in all processes but the first.

    Raises:
        InputError: If an option cannot be used.
    """
    processes = processes or Processes()
    device = open_device(processes.device(options.device or default_device()))
    resolutions = [parse_resolution(text) for text in options.resolutions]
    assign_labels(entries)
    known = {entry.data for entry in entries if entry.data}
    named = options.data or (known.pop() if len(known) == 1 else EMBEDDED[0])
    source = open_source(named, class_map=options.class_map)
    say = partial(console.print, highlight=False, markup=False)
    entries = probed(entries, options, source.name, source.classes, device, say)
    _check(options, entries, source)
    policies, notes = choose_policies(entries, options.policy)
    controls: list[Any] = [name for name in options.controls if name != "none"]
    tasks = plan(entries, policies, options.protocol, resolutions, list(dict.fromkeys(controls)))
    notes += published_notes(tasks, source.classes)
    for entry in entries:
        if entry.is_random:
            what = "its accuracy" if options.probe is None else "what is fitted on its features"
            notes.append(f"{entry.label} has random weights: {what} means little, its cost does")
    for note in notes:
        console.print(f"note: {note}", style="yellow", highlight=False)

    settings = Settings(
        device=device,
        batch_size=options.batch_size,
        amp=options.amp,
        limit=options.limit,
        limit_from=tuple(parse_factor_limit(text) for text in options.limit_from),
        seed=options.seed,
        workers=options.num_workers,
        skip_corrupt=options.skip_corrupt,
        fresh=options.fresh,
        crop=options.crop_pct,
        diagnostics=options.diagnostics,
    )
    chooser = _chooser(options, source, settings) if any(task.policy == AUTO for task in tasks) else None
    rows = _measure(tasks, source, settings, options.out, console, processes, chooser)
    if processes.rank:
        return None
    metric = options.metric or source.metric
    rows = [row | {"paper": published(task, source.classes)} for task, row in zip(tasks, against_native(rows))]
    arguments = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
    return Results(
        rows, summarise(rows, metric), regrets(rows, metric=metric), provenance(arguments, device, entries), source.name
    )


def write(results: Results, out: Path) -> None:
    """Write tables, CSV, JSON, plot and page into a directory."""
    lines = results.lines
    write_csv(out / "results.csv", results.rows, lines)
    write_json(out / "results.json", results.rows, lines, results.provenance, results.choices)
    title = f"Accuracy against resolution, {results.data}"
    write_atomic(out / "results.md", document(lines, title, results.as_timm_built_them))
    plot(out / "resolution.png", lines, title)
    page.write_page(
        out / "resolution.html",
        title,
        page.panels(lines),
        table=page.table(lines),
        details={"Settings and provenance": results.provenance},
    )


def report(results: Results, options: StudyOptions, console: Console) -> None:
    """Print the table, what ``auto`` was worth, and what was left out."""
    narrow = console.width < FULL_WIDTH
    show(console, results.lines, compact=narrow or options.table == "compact")
    if narrow and options.table == "full":
        console.print(f"(the full table needs {FULL_WIDTH} columns; its figures are in results.csv)", highlight=False)
    for sentence in (*describe_choices(results.choices), *results.as_timm_built_them):
        console.print(sentence, highlight=False)
    corrupt = sorted({name for row in results.rows for name in row.get("corrupt", [])})
    if corrupt:
        shown = ", ".join(corrupt[:5]) + (", ..." if len(corrupt) > 5 else "")
        console.print(f"{len(corrupt)} corrupt images left out: {shown}", style="yellow", highlight=False)
    files = "results.csv, results.json, results.md, resolution.png, resolution.html"
    console.print(f"written: {options.out}/{files}", highlight=False)


def _chooser(options: StudyOptions, source: Source, settings: Settings) -> PolicyChooser:
    """What chooses policies: by images of the validation split where there is one, else by some of the evaluated."""
    images = open_source(options.auto_data or source.name, "val")
    return PolicyChooser(
        images,
        options.auto_images,
        settings.limit_from,
        settings.seed,
        settings.batch_size,
        settings.workers,
        settings.device,
        Store(options.out),
    )


def _measure(
    tasks: Sequence[Task],
    source: Source,
    settings: Settings,
    out: Path,
    console: Console,
    processes: Processes,
    chooser: PolicyChooser | None,
) -> list[Row]:
    """All rows, in the order of ``tasks``; in processes but the first their own alone."""
    mine = processes.share([task.pixels for task in tasks])
    own = [tasks[i] for i in mine]
    reused: list[bool] = []
    with SteadyProgress(console=console, transient=True) as progress:
        # Pixels, not rows, so that the time left is right when the large sizes come last.
        bar = progress.add_task("measuring", total=sum(task.pixels for task in own))

        def advance(task: Task, stored: bool) -> None:
            reused.append(stored)
            progress.update(bar, advance=task.pixels, description=f"{task.entry.label}, {task.policy}")

        rows = list(sweep(own, source, settings, Store(out), device_name(settings.device), advance, chooser))
    every = [item for _, item in sorted(processes.gather(dict(zip(mine, zip(rows, reused)))).items())]
    console.print(f"{len(every)} rows, {sum(stored for _, stored in every)} of them already finished", highlight=False)
    return [row for row, _ in every]
