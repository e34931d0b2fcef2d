"""Detection and segmentation against the test scale: what ``visionpe scaling --config`` does."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import mmcv
import mmdet
import mmengine
import mmseg
import torch
from mmengine.dist import broadcast_object_list, get_rank, get_world_size
from rich.console import Console

from visionpe.detection.scaling import report
from visionpe.detection.scaling.auto import choose
from visionpe.detection.scaling.config import crop_size, parse_crop
from visionpe.detection.scaling.entries import entries_of
from visionpe.detection.scaling.plot import page, panels, plot
from visionpe.detection.scaling.rows import ModelEntry, Row, Task, failure, measure
from visionpe.scaling.options import AUTO, DOWNSCALE, StudyOptions
from visionpe.scaling.sizes import Resolution, Size, parse_resolution
from visionpe.scaling.store import VERSIONS, Store, key_of
from visionpe.scaling.sweep import OK
from visionpe.utils.device import device_name
from visionpe.utils.errors import InputError
from visionpe.utils.locks import locked
from visionpe.utils.progress import SteadyProgress

KNOWN = {"config", "checkpoint", "cfg_options", "crop", "resolutions", "policy", "controls"}
KNOWN |= {"limit", "fresh", "launcher", "out", "auto_images", "seed"}
WITHIN = {**VERSIONS, **{package.__name__: package.__version__ for package in (mmengine, mmcv, mmdet, mmseg)}}


def _check(args: StudyOptions) -> None:
    defaults = vars(StudyOptions())
    for name, given in vars(args).items():
        if name not in KNOWN and given != defaults[name]:
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
    if args.auto_images < 2:
        raise InputError(f"--auto-images {args.auto_images}: must be at least 2")


def _factors(texts: Sequence[str]) -> list[float]:
    found = [parse_resolution(text) for text in texts]
    for resolution in found:
        if resolution.factor is None:
            raise InputError(
                f"--resolutions {resolution.text}: with --config a factor of its own test scale, such as 1.5x"
            )
    return sorted({resolution.factor for resolution in found if resolution.factor is not None})


def plan(entries: Sequence[ModelEntry], factors: Sequence[float], crops: Sequence[Resolution]) -> list[Task]:
    """Every row to fill.

    Args:
        entries: The models.
        factors: Of the test scale.
        crops: From ``--crop``; none keeps the way of testing of each config.

    Raises:
        InputError: If a crop is a factor and a config does not say of what.
    """
    tasks = []
    for entry in entries:
        sizes: list[Size | None] = [crop_size(entry.config, crop) for crop in crops] or [None]
        for crop in dict.fromkeys(sizes):
            tasks += [Task(entry, policy, factor, crop) for policy in entry.policies for factor in factors]
    return tasks


def _stored(store: Store, key: str, fresh: bool) -> Row | None:
    """A finished row, the same in every process; rows that failed are tried again."""
    row = None if fresh or get_rank() else store.load(key, "status")
    found = [row if row and row["status"] == OK else None]
    broadcast_object_list(found)
    return found[0]


def _chosen(task: Task, args: StudyOptions, store: Store) -> tuple[Task, Row]:
    """A row to measure, and what it says of its choice: its status, where choosing failed."""
    if task.policy != AUTO:
        return task, {}
    key = key_of({"dense auto": task.key(None, WITHIN), "images": args.auto_images, "seed": args.seed})
    choice = _stored_choice(store, key)
    if choice is None:
        try:
            choice = asdict(choose(task, args.out, args.auto_images, args.seed))
        except Exception as error:
            return task, failure(error)
        if get_rank() == 0:
            store.save(key, choice)
    told = {"chosen": choice["policy"], "chosen_sure": choice["sure"]}
    return replace(task, policy=choice["policy"]), told


def _stored_choice(store: Store, key: str) -> Row | None:
    """A choice that was kept, the same in every process."""
    found = [None if get_rank() else store.load(key, "policy", "sure", "scores")]
    broadcast_object_list(found)
    return found[0]


def _sweep(tasks: Sequence[Task], args: StudyOptions, console: Console) -> list[Row]:
    store, rows, reused = Store(args.out), [], 0
    # The console keeps its file while what mmengine prints goes to a log.
    with SteadyProgress(
        console=console, transient=True, redirect_stdout=False, redirect_stderr=False, quiet=get_rank() > 0
    ) as progress:
        # Pixels, not rows, so that the time left is right when the large scales come last.
        costs = [task.entry.images * (1.0 if task.policy == DOWNSCALE else task.factor**2) for task in tasks]
        bar = progress.add_task("measuring", total=sum(costs))
        for task, cost in zip(tasks, costs):
            progress.update(bar, description=f"{task.entry.label}, {task.policy} at {task.factor:g}x")
            measured, choice = _chosen(task, args, store)
            key = measured.key(args.limit, WITHIN)
            row = choice if "status" in choice else _stored(store, key, args.fresh)
            reused += row is not None and "status" not in choice
            if row is None:
                row = measure(measured, args.out, args.limit)
                if get_rank() == 0:
                    store.save(key, row)
            rows.append({**task.head, **row, **choice})
            progress.advance(bar, cost)
    console.print(f"{len(rows)} rows, {reused} of them already finished", highlight=False)
    return rows


def _provenance(args: StudyOptions, entries: Sequence[ModelEntry]) -> dict[str, Any]:
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
                "label": entry.label,
                "config": str(entry.config.filename),
                "checkpoint": str(entry.checkpoint),
                "sha256": entry.sha256,
                "images": entry.images,
                "policies": entry.policies,
            }
            for entry in entries
        ],
    }


def run(args: StudyOptions, console: Console) -> list[Row]:
    """Measure every config, policy, crop and scale, and write the results.

    Args:
        args: With ``config``.
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
    console = Console(
        file=sys.stdout, width=None if console.is_terminal else console.width, quiet=not main, markup=False
    )
    factors = _factors(args.resolutions)
    crops = [parse_crop(text) for text in args.crop]
    try:
        entries = entries_of(args, console)
        with locked(args.out, "resolution study") if main else nullcontext():
            rows = _sweep(plan(entries, factors, crops), args, console)
        source = _provenance(args, entries)
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
