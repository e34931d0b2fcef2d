"""What does each position encoding cost? Latency and memory as ratios to no encoding at all, in one run.

Every encoding is timed in turn with the others (interleaved rounds, medians with quartiles), and, where timm has a
model of the same kind, against that model with the same weights.

    python tools/benchmark.py --encodings none ape rope_mixed --resolutions 224 512
    python tools/benchmark.py --level attention --resolutions 512 1024 --backward
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

import visionpe
from bench.cases import LEVELS, Case, build
from bench.timing import measure
from scaling.errors import InputError
from scaling.report import device_name
from scaling.store import write_atomic

COLUMNS = {"ms": "{:.2f}", "ratio": "{:.3f}", "vs_peer": "{:.3f}", "difference": "{:.1e}", "peak_mib": "{:.1f}"}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="benchmark.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--encodings", nargs="+", metavar="SPEC", help="default: all registered ones")
    p.add_argument("--resolutions", nargs="+", type=int, default=[224], metavar="PIXELS", help="multiples of 16")
    p.add_argument("--level", nargs="+", choices=LEVELS, default=["model"])
    p.add_argument("--backward", action="store_true", help="time the gradient too")
    p.add_argument("--amp", action="store_true", help="bfloat16 autocast")
    p.add_argument("--compile", action="store_true", help="through torch.compile")
    p.add_argument("--batch-size", type=int, default=1, metavar="N")
    p.add_argument("--repeats", type=int, default=15, metavar="N", help="rounds that count (default: %(default)s)")
    p.add_argument("--threads", type=int, metavar="N", help="of the CPU; default: PyTorch's own choice")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--out", type=Path, default=Path("work_dirs/benchmark"), metavar="DIR")
    return p


def _check(args: argparse.Namespace) -> None:
    for pixels in args.resolutions:
        if pixels < 16 or pixels % 16:
            raise InputError(f"--resolutions {pixels}: must be a positive multiple of the patch, 16")
    for name in ("batch_size", "repeats"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(args, name)}: must be at least 1")
    for spec in args.encodings or []:
        try:
            visionpe.create_encoding(spec, dim=384, num_heads=6, depth=12)
        except ValueError as error:
            raise InputError(f"--encodings {spec}: {error}") from error


def table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """One level at one resolution."""
    t = Table(title=title, title_justify="left")
    for heading in ("encoding", "ms", "times none", "quartiles", "times timm", "max. difference", "peak MiB"):
        t.add_column(heading, justify="left" if heading == "encoding" else "right")
    for row in rows:
        cells = {key: "" if row[key] is None else form.format(row[key]) for key, form in COLUMNS.items()}
        spread = f"{row['ratio_low']:.3f} to {row['ratio_high']:.3f}"
        t.add_row(
            row["name"], cells["ms"], cells["ratio"], spread, cells["vs_peer"], cells["difference"], cells["peak_mib"]
        )
    return t


def _plot(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    levels = dict.fromkeys(row["level"] for row in rows)
    for name in dict.fromkeys(row["name"] for row in rows if not row["name"].startswith("timm ")):
        for level, style in zip(levels, ("-", "--", ":")):
            own = [row for row in rows if row["name"] == name and row["level"] == level]
            label = name if len(levels) == 1 else f"{name}, {level}"
            axes.plot([r["tokens"] for r in own], [r["ratio"] for r in own], style, marker="o", ms=4, label=label)
    axes.axhline(1, color="grey", lw=0.8)
    axes.set(xscale="log", xlabel="tokens", ylabel="time, times no encoding")
    axes.legend(bbox_to_anchor=(1.02, 0.5), loc="center left", frameon=False, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=140)
    plt.close(figure)
    write_atomic(path, buffer.getvalue())


def run(args: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    """Measure, show and write.

    Raises:
        InputError: If an argument cannot be used.
    """
    _check(args)
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    specs = list(dict.fromkeys(["none", *(args.encodings or visionpe.list_encodings())]))
    groups = [(level, pixels) for level in args.level for pixels in args.resolutions]
    rows: list[dict[str, Any]] = []
    columns = (*Progress.get_default_columns()[:2], TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("rounds", total=len(groups) * (args.repeats + 2))
        for level, pixels in groups:
            options = {"backward": args.backward, "amp": args.amp, "compiled": args.compile}
            cases: list[Case] = []
            for spec in specs:
                cases += build(spec, level=level, size=pixels, batch=args.batch_size, device=device, **options)
            found = measure(cases, device, args.repeats, lambda: progress.advance(bar))
            rows += [{"level": level, "pixels": pixels, "tokens": (pixels // 16) ** 2 + 1, **row} for row in found]
    for level, pixels in groups:
        own = [row for row in rows if (row["level"], row["pixels"]) == (level, pixels)]
        console.print(table(own, f"{level}, ViT-S at {pixels} pixels, batch {args.batch_size}"))
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()} | {
        "threads": torch.get_num_threads()
    }
    about = {"device": device_name(device), "python": platform.python_version(), "torch": torch.__version__}
    about |= {"timm": timm.__version__, "visionpe": visionpe.__version__}
    write_atomic(args.out / "benchmark.json", json.dumps({"settings": settings, **about, "rows": rows}, indent=1))
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(args.out / "benchmark.csv", text.getvalue())
    _plot(args.out / "benchmark.png", rows)
    console.print(
        f"medians of {args.repeats} interleaved rounds on {about['device']}; written: {args.out}", style="dim"
    )
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit code, 2 for input that cannot be used."""
    args = parser().parse_args(argv)
    console = Console()
    try:
        run(args, console if console.is_terminal else Console(width=140))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
