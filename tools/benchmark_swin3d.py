"""How fast is cRSE attention among voxels? Ours against a loop over windows and one flat list of pairs, in one run.

Windows of 5 voxels, position and colour as signals, in rooms of 2 cm voxels and in a real scan. Rows of the tables are
worked out beforehand for all three; forward and backward pass are timed apart, formulations in turn, and their outputs
compared.

python tools/benchmark_swin3d.py --voxels 20000 40000 80000 --scan
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import visionpe
from bench.voxel_attention import FLAT, FORMS, LOOP
from bench.voxel_report import growth, least_ratios, table, write
from bench.voxel_timing import Row, Task, measure_seconds, peak_mib
from scaling.errors import InputError
from scaling.report import device_name

LEAST = 1000  # voxels, of a room


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="benchmark_swin3d.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--voxels", nargs="+", type=int, default=[20000, 40000, 80000], metavar="N", help="of the rooms")
    p.add_argument("--scan", action="store_true", help="the motorcycle too; needs visionpe[detection,data]")
    p.add_argument(
        "--loop-up-to",
        type=int,
        default=30000,
        metavar="N",
        help="voxels; its memory grows by a gigabyte for every few thousand (default: %(default)s)",
    )
    p.add_argument("--flat-up-to", type=int, default=80000, metavar="N", help="voxels (default: %(default)s)")
    p.add_argument("--heads", type=int, default=6, metavar="N", help="(default: %(default)s)")
    p.add_argument("--head-dim", type=int, default=16, metavar="N", help="(default: %(default)s)")
    p.add_argument("--repeats", type=int, default=5, metavar="N", help="rounds that count (default: %(default)s)")
    p.add_argument("--no-memory", dest="memory", action="store_false", help="leave the peaks out")
    p.add_argument("--threads", type=int, metavar="N", help="of the CPU; default: PyTorch's own choice")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(default: %(default)s)")
    p.add_argument(
        "--out", type=Path, default=Path("work_dirs/benchmark"), metavar="DIR", help="(default: %(default)s)"
    )
    p.add_argument("--name", default="swin3d_attention", help="of the files: .md .json .png (default: %(default)s)")
    return p


def _check(args: argparse.Namespace) -> None:
    for voxels in args.voxels:
        if voxels < LEAST:
            raise InputError(f"--voxels {voxels}: must be at least {LEAST}")
    for name in ("heads", "head_dim", "repeats", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} {value}: must be at least 1")
    try:
        torch.empty(0, device=args.device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {args.device}: {str(error).splitlines()[0]}") from error
    if args.scan:
        try:
            Task(0, 1, 1, "cpu", 1).problem()
        except (ModuleNotFoundError, FileNotFoundError) as error:
            raise InputError(f"--scan: {str(error).splitlines()[0]}") from error


def run(args: argparse.Namespace, console: Console) -> list[Row]:
    """Measure, show and write.

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
    columns = (*Progress.get_default_columns()[:2], TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
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


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit code, 2 for input that cannot be used."""
    args = parser().parse_args(argv)
    try:
        run(args, Console())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
