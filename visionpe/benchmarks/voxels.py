"""How fast is cRSE attention among voxels? Ours against a loop over windows and one flat list of pairs, in one run.

Windows of 5 voxels, position and colour as signals, in rooms of 2 cm voxels and in a real scan. Rows of the tables are
worked out beforehand for all three; forward and backward pass are timed apart, formulations in turn, and their outputs
compared."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import visionpe
from visionpe.benchmarks.voxel_attention import FLAT, FORMS, LOOP
from visionpe.benchmarks.voxel_report import growth, least_ratios, table, write
from visionpe.benchmarks.voxel_timing import Row, Task, measure_seconds, peak_mib
from visionpe.utils.device import device_name, open_device
from visionpe.utils.errors import InputError, check_counts
from visionpe.utils.progress import SteadyProgress

LEAST = 1000  # voxels, of a room


def check_voxels(counts: Sequence[int]) -> None:
    """Refuse rooms of too few voxels.

    Raises:
        InputError: Names the number.
    """
    for voxels in counts:
        if voxels < LEAST:
            raise InputError(f"--voxels {voxels}: must be at least {LEAST}")


def _check(args: argparse.Namespace) -> None:
    check_voxels(args.voxels)
    check_counts(args, "heads", "head_dim", "repeats", "threads")
    args.device = str(open_device(args.device))
    if args.scan:
        try:
            Task(0, 1, 1, "cpu", 1).problem()
        except (ModuleNotFoundError, FileNotFoundError) as error:
            raise InputError(f"--scan: {str(error).splitlines()[0]}") from error


def run(args: argparse.Namespace, console: Console) -> list[Row]:
    """Measure, show and write.

    Args:
        args: Of ``visionpe benchmark swin3d``, see :mod:`visionpe.cli.benchmark`.
        console: For tables and the progress bar.

    Raises:
        InputError: If an argument cannot be used.
    """
    _check(args)
    if args.threads:
        torch.set_num_threads(args.threads)
    threads = torch.get_num_threads()
    sizes = [*sorted(set(args.voxels)), *([0] if args.scan else [])]
    tasks = [Task(voxels, args.heads, args.head_dim, str(args.device), threads) for voxels in sizes]
    limits = {LOOP: args.loop_up_to, FLAT: args.flat_up_to}
    chosen = [[f for f in FORMS if task.voxels <= limits.get(f, task.voxels)] for task in tasks]
    rows: list[Row] = []
    with SteadyProgress(console=console) as progress:
        steps = sum(args.repeats + 1 + args.memory * len(forms) for forms in chosen)
        bar = progress.add_task("rounds", total=steps)
        for task, forms in zip(tasks, chosen):
            found = measure_seconds(task, forms, args.repeats, lambda: progress.advance(bar))
            for row in found:
                row["peak_mib"], status = peak_mib(task, row["form"]) if args.memory else (None, "ok")
                row["status"] = status if row["status"] == "ok" else row["status"]
                base = found[0]["peak_mib"]
                row["peak_ratio"] = row["peak_mib"] / base if row["peak_mib"] and base else None
                progress.advance(bar, int(args.memory))
            rows += found
    settings: dict[str, Any] = {key: str(v) if isinstance(v, Path) else v for key, v in vars(args).items()}
    settings["threads"] = threads
    about = {"device": device_name(torch.device(args.device)), "python": platform.python_version()}
    about |= {"torch": torch.__version__, "visionpe": visionpe.__version__}
    notes = [
        f"Windows of 5 voxels of 2 cm, {args.heads} heads of {args.head_dim} channels, XYZ_RGB. Medians of "
        f"{args.repeats} interleaved rounds, ratios within a round; the peak of a forward and a backward pass above "
        f"what was held before, each in a process of its own. The loop runs up to {args.loop_up_to:,} voxels and the "
        f"flat list up to {args.flat_up_to:,}."
    ]
    write(args.out, args.name, rows, settings=settings, about=about, notes=notes)
    console.print(table(rows))
    for line in [*least_ratios(rows), *growth(rows)]:
        console.print(line, soft_wrap=True)
    return rows
