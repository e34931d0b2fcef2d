"""What the quickstarts are as programs: their arguments, how many jobs they run, and the exit code they end with."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from scaling.errors import InputError


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def digit_parser(
    prog: str, description: str | None, *, encodings: Sequence[str], seeds: int, out: str
) -> argparse.ArgumentParser:
    """The command line of a program that trains small ViTs on digits.

    Args:
        prog, description: Of the program.
        encodings, seeds, out: Defaults.
    """
    p = argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument(
        "--encodings",
        nargs="+",
        default=list(encodings),
        metavar="NAME",
        help=f"those with a configs/<data>/<name>_vit.py (default: {' '.join(encodings)})",
    )
    p.add_argument(
        "--seeds", type=int, default=seeds, metavar="N", help="trainings of each encoding (default: %(default)s)"
    )
    p.add_argument("--out", type=Path, default=Path(out), metavar="DIR", help="(default: %(default)s)")
    p.add_argument(
        "--jobs", type=int, default=cores(), metavar="N", help="processes at once (default: cores, %(default)s)"
    )
    p.add_argument(
        "--epochs", type=int, metavar="N", help="stop after N epochs of the config's schedule, to try things out"
    )
    return p


def check_counts(args: argparse.Namespace, *names: str) -> None:
    """Refuse counts below one.

    Raises:
        InputError: Naming the first of them.
    """
    for name in names:
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}: must be at least 1")


def exit_code(work: Callable[[], object]) -> int:
    """Run ``work``: 0, 2 for input that cannot be used or a failed training, 130 when interrupted."""
    try:
        work()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from there", file=sys.stderr)
        return 130
    return 0
