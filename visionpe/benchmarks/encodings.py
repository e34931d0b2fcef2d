"""What does each position encoding cost? Latency and memory as ratios to no encoding at all, in one run.

Every encoding is timed in turn with the others (interleaved rounds, medians with quartiles), and, where other code does
the same, against that with the same weights: timm's attention modules, iRPE by its paper's matrix, timm's models.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from rich.console import Console

import visionpe.backbones  # registers the models with timm
from visionpe.benchmarks.cases import Setting, build
from visionpe.benchmarks.memory import measure_memory
from visionpe.benchmarks.options import HEADS, PASSES, PATCH
from visionpe.benchmarks.plot import plot
from visionpe.benchmarks.report import Row, groups, table, write
from visionpe.benchmarks.specs import create, expand, inside_attention
from visionpe.benchmarks.timing import WARM_UPS, measure
from visionpe.utils.device import device_name, open_device
from visionpe.utils.errors import InputError, check_counts
from visionpe.utils.progress import SteadyProgress


def _check(args: argparse.Namespace) -> None:
    for pixels in args.resolutions:
        if pixels < PATCH or pixels % PATCH:
            raise InputError(f"--resolutions {pixels}: must be a positive multiple of the patch, {PATCH}")
    check_counts(args, "batch_size", "repeats", "heads", "threads")
    if args.prefix < 0:
        raise InputError(f"--prefix {args.prefix}: must be at least 0")
    if args.level != ["core"]:
        for name, given, default in (("kernels", args.kernels, ["auto"]), ("heads", args.heads, HEADS)):
            if given != default:
                shown = " ".join(given) if isinstance(given, list) else given
                raise InputError(f"--{name} {shown}: allowed with --level core alone")
    args.device = str(open_device(args.device))
    for spec in args.encodings:
        if spec != "all":
            create(spec)


def _settings(args: argparse.Namespace) -> list[Setting]:
    return [
        Setting(
            level,
            pixels,
            batch=args.batch_size,
            prefix=args.prefix,
            device=str(args.device),
            backward=which == "backward",
            amp=args.amp,
            compiled=args.compile,
            kernels=tuple(args.kernels),
            heads=args.heads,
            peers=args.peers and not args.memory_only,
        )
        for level in args.level
        for which in args.passes
        for pixels in args.resolutions
    ]


def _chosen(args: argparse.Namespace, level: str) -> tuple[list[str], list[str]]:
    """What to measure at a level, and what is left out there as the same as ``none``, unless it was named."""
    specs = expand(args.encodings)
    if level not in ("core", "attention"):
        return specs, []
    idle = [s for s in specs if s not in ("none", *args.encodings) and not inside_attention(s)]
    return [s for s in specs if s not in idle], idle


def _measured(args: argparse.Namespace, console: Console, keep: Callable[[list[Row]], None]) -> list[Row]:
    """All rows; ``keep`` is called with those so far whenever some are done."""
    settings, device = _settings(args), torch.device(args.device)
    chosen = [_chosen(args, setting.level)[0] for setting in settings]
    rounds = (args.repeats + WARM_UPS) * len(settings)
    rows: list[Row] = []
    with SteadyProgress(console=console) as progress:
        steps = ("encodings", sum(map(len, chosen))) if args.memory_only else ("rounds", rounds)
        bar = progress.add_task(steps[0], total=steps[1])
        for setting, specs in zip(settings, chosen):
            which = PASSES["backward" if setting.backward else "forward"]
            place = {"level": setting.level, "pass": which, "pixels": setting.pixels, "tokens": setting.tokens}
            if args.memory_only:
                for found in measure_memory(specs, setting, torch.get_num_threads()):
                    progress.advance(bar)
                    rows += [{**place, **row} for row in found]
                    keep(rows)
                continue
            cases = [case for spec in specs for case in build(spec, setting)]
            rows += [{**place, **row} for row in measure(cases, device, args.repeats, lambda: progress.advance(bar))]
            keep(rows)
    return rows


def _notes(args: argparse.Namespace) -> list[str]:
    if args.memory_only:
        notes = ["Peak memory of one call above what was held before it, each in a process of its own."]
    else:
        notes = [f"Medians of {args.repeats} interleaved rounds; peak memory is of one call."]
    for level in args.level:
        names = ", ".join(f"`{name}`" for name in _chosen(args, level)[1])
        notes += [f"Nothing to do at level {level}, so the same as `none`: {names}."] if names else []
    return notes


def run(args: argparse.Namespace, console: Console) -> list[Row]:
    """Measure, show and write.

    Args:
        args: Of ``visionpe benchmark``, see :mod:`visionpe.cli.benchmark`.
        console: For tables and the progress bar.

    Raises:
        InputError: If an argument cannot be used.
        MismatchError: If a peer gives another output than ours.
    """
    _check(args)
    if args.threads:
        torch.set_num_threads(args.threads)
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    settings["threads"] = torch.get_num_threads()
    about = {"device": device_name(torch.device(args.device)), "python": platform.python_version()}
    about |= {"torch": torch.__version__, "timm": timm.__version__, "visionpe": visionpe.__version__}
    notes = _notes(args)

    def keep(rows: list[Row]) -> None:
        write(args.out, args.name, rows, settings=settings, about=about, notes=notes)

    rows = _measured(args, console, keep)
    for title, own in groups(rows, args.batch_size).items():
        console.print(table(own, title))
    if not args.memory_only:
        how = [f"batch {args.batch_size}", *(["bfloat16"] if args.amp else []), *(["compiled"] if args.compile else [])]
        plot(args.out / f"{args.name}.png", rows, title=f"{about['device']}, {', '.join(how)}")
    console.print(f"{' '.join(notes)} Written: {args.out / args.name}.*", style="dim")
    return rows
