"""What does each position encoding cost? Latency and memory as ratios to no encoding at all, in one run.

Every encoding is timed in turn with the others (interleaved rounds, medians with quartiles), and, where other code does
the same, against that with the same weights: timm's attention modules, iRPE by its paper's matrix, timm's models.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import timm
import torch
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import visionpe
from bench.cases import KERNELS, LEVELS, Setting, build
from bench.fresh import measure_memory
from bench.peers import MismatchError
from bench.plot import plot
from bench.report import Row, groups, table, write
from bench.specs import HEADS, PATCH, create, expand, inside_attention
from bench.timing import WARM_UPS, measure
from scaling.errors import InputError
from scaling.report import device_name

EXAMPLES = """\
examples:
  python tools/benchmark.py --encodings ape rope_mixed irpe:method=cross,on=qkv --resolutions 224 512
  python tools/benchmark.py --level attention --resolutions 512 1024 --pass forward backward
  python tools/benchmark.py --level core --encodings decomposed irpe --kernels auto sdpa math --resolutions 256
  python tools/benchmark.py --level core --resolutions 2048 --memory-only

levels:
  core       what an encoding does to queries, keys, values and logits, and attention itself; no linear layers
  attention  the attention module of a ViT-S; peers are timm's modules, with our weights
  block      a transformer block
  model      the whole ViT-S; peers are timm's models
"""
PASSES = {"forward": "forward", "backward": "forward and backward"}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="benchmark.py",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = p.add_argument_group("what to measure")
    what.add_argument(
        "--encodings",
        nargs="+",
        default=["all"],
        metavar="SPEC",
        help="names, a+b, name:key=value,key=value, or all (default: all)",
    )
    what.add_argument("--level", nargs="+", choices=LEVELS, default=["model"], help="(default: model)")
    what.add_argument(
        "--resolutions", nargs="+", type=int, default=[224], metavar="PIXELS", help="multiples of 16 (default: 224)"
    )
    what.add_argument(
        "--pass",
        nargs="+",
        dest="passes",
        choices=tuple(PASSES),
        default=["forward"],
        help="backward is the forward pass with the gradient (default: forward)",
    )
    what.add_argument(
        "--kernels",
        nargs="+",
        choices=KERNELS,
        default=["auto"],
        help="at level core; of several, the difference from the first is told (default: auto)",
    )
    what.add_argument("--no-peers", dest="peers", action="store_false", help="leave other code out")
    what.add_argument(
        "--memory-only",
        action="store_true",
        help="one call of each, in a process of its own, for its peak memory; no peers",
    )
    how = p.add_argument_group("how")
    how.add_argument("--amp", action="store_true", help="bfloat16 autocast")
    how.add_argument("--compile", action="store_true", help="through torch.compile")
    how.add_argument("--batch-size", type=int, default=1, metavar="N", help="(default: %(default)s)")
    how.add_argument(
        "--prefix",
        type=int,
        default=0,
        metavar="N",
        help="class tokens, at all levels but model, which has one; peers take none (default: %(default)s)",
    )
    how.add_argument("--heads", type=int, default=HEADS, metavar="N", help="at level core (default: %(default)s)")
    how.add_argument("--repeats", type=int, default=15, metavar="N", help="rounds that count (default: %(default)s)")
    how.add_argument("--threads", type=int, metavar="N", help="of the CPU; default: PyTorch's own choice")
    how.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(default: %(default)s)")
    out = p.add_argument_group("results")
    out.add_argument(
        "--out", type=Path, default=Path("work_dirs/benchmark"), metavar="DIR", help="(default: %(default)s)"
    )
    out.add_argument("--name", default="benchmark", help="of the files: .md .csv .json .png (default: %(default)s)")
    return p


def _check(args: argparse.Namespace) -> None:
    for pixels in args.resolutions:
        if pixels < PATCH or pixels % PATCH:
            raise InputError(f"--resolutions {pixels}: must be a positive multiple of the patch, {PATCH}")
    least = {"batch_size": 1, "repeats": 1, "heads": 1, "prefix": 0} | ({} if args.threads is None else {"threads": 1})
    for name, low in least.items():
        if getattr(args, name) < low:
            raise InputError(f"--{name.replace('_', '-')} {getattr(args, name)}: must be at least {low}")
    if args.level != ["core"]:
        for name, given, default in (("kernels", args.kernels, ["auto"]), ("heads", args.heads, HEADS)):
            if given != default:
                shown = " ".join(given) if isinstance(given, list) else given
                raise InputError(f"--{name} {shown}: allowed with --level core alone")
    try:
        torch.empty(0, device=args.device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {args.device}: {str(error).splitlines()[0]}") from error
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
    columns = (*Progress.get_default_columns()[:2], TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
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


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit code, 2 for input that cannot be used."""
    args = parser().parse_args(argv)
    console = Console()
    try:
        run(args, console if console.is_terminal else Console(width=150))
    except (InputError, MismatchError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
