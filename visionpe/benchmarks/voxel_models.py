"""What do whole models over voxels cost? Several of them in turn, on rooms of 2 cm voxels."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from rich.console import Console
from rich.table import Table

import visionpe.backbones  # registers the models with timm
from visionpe.benchmarks.cases import Case
from visionpe.benchmarks.timing import WARM_UPS, measure
from visionpe.benchmarks.voxel_scenes import room
from visionpe.benchmarks.voxels import check_voxels
from visionpe.sparse import Voxels
from visionpe.utils.console import wide_console
from visionpe.utils.device import device_name, open_device
from visionpe.utils.errors import InputError, check_counts
from visionpe.utils.files import write_atomic
from visionpe.utils.progress import SteadyProgress
from visionpe.utils.timm_models import create_model

Row = dict[str, Any]
MEMORY = (("peak_mib", "{:,.0f}"), ("peak_ratio", "{:.2f}"))
HEADINGS = ("model", "voxels", "pass", "ms", "quartiles", "times the first", "peak MiB", "times the first")


def scene(count: int, channels: int) -> Voxels:
    """A room whose coordinates start at 0, with features drawn at random."""
    coords, signals = room(count)
    low = coords[:, 1:].amin(0)
    coords[:, 1:] -= low
    signals[:, :3] -= low
    return Voxels(torch.randn(count, channels, generator=torch.Generator().manual_seed(0)), coords, signals)


def cases(names: Sequence[str], count: int, device: torch.device, *, backward: bool) -> list[Case]:
    """Each model on a room, forward in evaluation, or forward and backward in training.

    Args:
        names: Of timm models that take voxels.
        count: Voxels.
        device: Where.
        backward: Whether gradients are computed.

    Raises:
        InputError: If a model takes no voxels.
    """
    found = []
    for name in names:
        torch.manual_seed(0)
        try:
            model: Any = create_model(name, None).train(backward).to(device)
        except (RuntimeError, ValueError, TypeError) as error:
            raise InputError(f"--models {name}: {str(error).splitlines()[0]}") from None
        if not hasattr(model, "in_chans") or not hasattr(model, "cloud_size"):
            raise InputError(f"--models {name}: takes no voxels; allowed: models such as swin3d_s_unet, ptv3_b_unet")
        voxels = scene(count, model.in_chans).to(device)

        def call(model: Any = model, voxels: Voxels = voxels) -> None:
            with torch.set_grad_enabled(backward):
                out = model(voxels)
            if backward:
                model.zero_grad()
                out.float().square().mean().backward()

        found.append(Case(name, name, call))
    return found


def _cells(row: Row) -> list[str]:
    if row["status"] != "ok":
        return [f"{row['name']}: {row['status']}", f"{row['voxels']:,}", row["pass"], *[""] * 5]
    peak = ["" if row[key] is None else form.format(row[key]) for key, form in MEMORY]
    times = [f"{row['ms']:,.0f}", f"{row['ms_low']:,.0f} to {row['ms_high']:,.0f}", f"{row['ratio']:.2f}"]
    return [row["name"], f"{row['voxels']:,}", row["pass"], *times, *peak]


def run(args: argparse.Namespace, console: Console) -> list[Row]:
    """Measure, show and write.

    Args:
        args: Of ``visionpe benchmark voxels``, see :mod:`visionpe.cli.benchmark`.
        console: For tables and the progress bar.

    Raises:
        InputError: If an argument cannot be used.
    """
    check_voxels(args.voxels)
    check_counts(args, "repeats", "threads")
    if args.threads:
        torch.set_num_threads(args.threads)
    device, rows = open_device(args.device), []
    with SteadyProgress(console=console) as progress:
        bar = progress.add_task("rounds", total=len(args.voxels) * len(args.passes) * (args.repeats + WARM_UPS))
        for count in sorted(set(args.voxels)):
            for name in args.passes:
                own = cases(args.models, count, device, backward=name == "backward")
                found = measure(own, device, args.repeats, lambda: progress.advance(bar))
                rows += [{**row, "voxels": count, "pass": name} for row in found]
    about: Row = {"device": device_name(device), "python": platform.python_version(), "torch": torch.__version__}
    about |= {"timm": timm.__version__, "visionpe": visionpe.__version__, "threads": torch.get_num_threads()}
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    lines = [list(HEADINGS), ["---", *["--:"] * (len(HEADINGS) - 1)], *map(_cells, rows)]
    where = ", ".join(f"{key} {value}" for key, value in about.items())
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    note = f"Medians of {args.repeats} interleaved rounds, random weights and features; {where}."
    write_atomic(args.out / f"{args.name}.md", f"# {args.name.replace('_', ' ')}\n\n{text}\n\n{note}\n")
    content = {"settings": settings, **about, "rows": rows}
    write_atomic(args.out / f"{args.name}.json", json.dumps(content, indent=1) + "\n")
    table = Table()
    for number, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="right" if number else "left")
    for row in rows:
        table.add_row(*_cells(row))
    wide_console(110).print(table)
    return rows
