"""Detection and segmentation against the test scale: what ``tools/resolution_scaling.py --config`` does."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import mmdet
import mmengine
import mmseg
import torch
from mmengine.dist import broadcast_object_list, get_rank, get_world_size
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dense import scaling_report as report
from dense.scaling_config import crop_size, parse_crop
from dense.scaling_plot import page, panels, plot
from dense.scaling_rows import Row, Subject, Task, measure
from dense.scaling_subjects import subjects_of
from scaling.controls import DOWNSCALE
from scaling.errors import InputError
from scaling.report import device_name
from scaling.sizes import Resolution, Size, parse_resolution
from scaling.store import VERSIONS, Store
from scaling.sweep import OK

KNOWN = {"config", "checkpoint", "cfg_options", "crop", "resolutions", "policy", "controls"}
KNOWN |= {"limit", "fresh", "launcher", "out"}
WITHIN = {**VERSIONS, **{package.__name__: package.__version__ for package in (mmengine, mmcv, mmdet, mmseg)}}


def _check(args: argparse.Namespace) -> None:
    from scaling.arguments import parser

    defaults = parser()
    for name, given in vars(args).items():
        if name not in KNOWN and given != defaults.get_default(name):
            raise InputError(
                f"--{name.replace('_', '-')}: cannot be used with --config, which says all about data and model itself "
                "(change it with --cfg-options); allowed beside it: "
                + ", ".join(f"--{other.replace('_', '-')}" for other in sorted(KNOWN - {"config"}))
            )
    if len(args.config) != len(args.checkpoint):
        raise InputError(
            f"--checkpoint: {len(args.checkpoint)} given for {len(args.config)} --config; one for each, in that order"
        )
    if args.limit is not None and args.limit < 1:
        raise InputError(f"--limit {args.limit}: must be at least 1")
    if "tiling" in args.controls:
        raise InputError("--controls tiling: averages class predictions; with --config and segmentation use --crop 1x")
    if "auto" in args.policy:
        raise InputError("--policy auto: chooses by the predictions of a classifier; --config takes all or names")


def _factors(texts: Sequence[str]) -> list[float]:
    found = [parse_resolution(text) for text in texts]
    for resolution in found:
        if resolution.factor is None:
            raise InputError(
                f"--resolutions {resolution.text}: with --config a factor of its own test scale, such as 1.5x"
            )
    return sorted({resolution.factor for resolution in found if resolution.factor is not None})


def plan(subjects: Sequence[Subject], factors: Sequence[float], crops: Sequence[Resolution]) -> list[Task]:
    """Every row to fill.

    Args:
        subjects: The models.
        factors: Of the test scale.
        crops: From ``--crop``; none keeps the way of testing of each config.

    Raises:
        InputError: If a crop is a factor and a config does not say of what.
    """
    tasks = []
    for subject in subjects:
        sizes: list[Size | None] = [crop_size(subject.config, crop) for crop in crops] or [None]
        for crop in dict.fromkeys(sizes):
            tasks += [Task(subject, policy, factor, crop) for policy in subject.policies for factor in factors]
    return tasks


def _stored(store: Store, key: str, fresh: bool) -> Row | None:
    """A finished row, the same in every process; rows that failed are tried again."""
    row = None if fresh or get_rank() else store.load(key)
    found = [row if row and row["status"] == OK else None]
    broadcast_object_list(found)
    return found[0]


def _sweep(tasks: Sequence[Task], args: argparse.Namespace, console: Console) -> list[Row]:
    columns = (
        *(TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()),
        *(TextColumn("left"), TimeRemainingColumn()),
    )
    store, rows, reused = Store(args.out), [], 0
    # The console keeps its file while what mmengine prints goes to a log.
    with Progress(
        *columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False, disable=get_rank() > 0
    ) as progress:
        # Pixels, not rows, so that the time left is right when the large scales come last.
        costs = [task.subject.images * (1.0 if task.policy == DOWNSCALE else task.factor**2) for task in tasks]
        bar = progress.add_task("measuring", total=sum(costs))
        for task, cost in zip(tasks, costs):
            progress.update(bar, description=f"{task.subject.label}, {task.policy} at {task.factor:g}x")
            key = task.key(args.limit, WITHIN)
            row = _stored(store, key, args.fresh)
            reused += row is not None
            if row is None:
                row = measure(task, args.out, args.limit)
                if get_rank() == 0:
                    store.save(key, row)
            rows.append({**task.head, **row})
            progress.advance(bar, cost)
    console.print(f"{len(rows)} rows, {reused} of them already finished", highlight=False)
    return rows


def _provenance(args: argparse.Namespace, subjects: Sequence[Subject]) -> dict[str, Any]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {
        "versions": {"python": platform.python_version(), **WITHIN},
        "platform": platform.platform(),
        "device_name": device_name(device),
        "processes": get_world_size(),
        "threads": torch.get_num_threads(),
        "arguments": {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()},
        "models": [
            {
                "label": subject.label,
                "config": str(subject.config.filename),
                "checkpoint": str(subject.checkpoint),
                "sha256": subject.sha256,
                "images": subject.images,
                "policies": subject.policies,
            }
            for subject in subjects
        ],
    }


def run(args: argparse.Namespace, console: Console) -> list[Row]:
    """Measure every config, policy, crop and scale, and write the results.

    Args:
        args: From :func:`scaling.arguments.parser`, with ``config``.
        console: Its width is kept.

    Returns:
        The rows: ``label config checkpoint policy factor crop status reason``, and ``n seconds metrics`` of those that
        went well.

    Raises:
        InputError: If an argument cannot be used.
    """
    _check(args)
    main = args.launcher == "none" or int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0))) == 0
    # One that writes to where standard output is now, as it is led to a log while mmengine runs.
    console = Console(file=sys.stdout, width=None if console.is_terminal else console.width, quiet=not main)
    factors = _factors(args.resolutions)
    crops = [parse_crop(text) for text in args.crop]
    try:
        subjects = subjects_of(args, console)
        rows = _sweep(plan(subjects, factors, crops), args, console)
        source = _provenance(args, subjects)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    if main:
        files = report.write(rows, args.out, source)
        files += [args.out / "resolution.png", args.out / "resolution.html"]
        drawn, title = panels(rows), "Detection and segmentation against the test scale"
        plot(files[-2], drawn, title)
        page(files[-1], drawn, rows, title, source)
        report.show(rows, console)
        console.print(f"written: {', '.join(map(str, files))}", highlight=False, soft_wrap=True)
    return rows
