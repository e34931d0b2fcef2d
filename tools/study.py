"""Train small, run large: what every resolution policy does for eight encodings, on a CPU, in less than an hour.

Trains small vision transformers on real handwritten digits, three seeds of each encoding; measures all their policies
at half to six times the trained size, under both protocols, beside the image resized to the trained size and beside
`auto`, which chooses a policy without labels; leaves tables, plots and a page. Finished work is kept: running it again
resumes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from scaling.program import check_counts, digit_parser, exit_code

ENCODINGS = ("ape", "rope_mixed", "rope_axial", "cpe", "rpb", "fire", "lookhere", "alibi")
FACTORS = ("0.5x", "1x", "1.5x", "2x", "3x", "4x", "6x")
# 1,296 tokens at 6x cost a hundred times as much as 36: fewer images there, and wider intervals.
IMAGES = ("--limit", "240", "--fewer", "3x=120", "4x=48", "6x=24", "--auto-images", "48", "--diagnostics", "2")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = digit_parser("study.py", __doc__, encodings=ENCODINGS, seeds=3, out="work_dirs/study")
    p.add_argument(
        "--resolutions", nargs="+", default=list(FACTORS), metavar="SIZE", help=f"(default: {' '.join(FACTORS)})"
    )
    p.add_argument("--quick", action="store_true", help="24 images a row, to try things out")
    return p


def sweep_command(args: argparse.Namespace, runs: Sequence[str]) -> list[str]:
    """The command that measures everything, in as many processes as there are jobs."""
    script = Path(__file__).with_name("resolution_scaling.py")
    images = ("--limit", "24", "--auto-images", "12", "--diagnostics", "2") if args.quick else IMAGES
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={args.jobs}"] if args.jobs > 1 else []
    command = [sys.executable, *launch, str(script), *(("--launcher", "pytorch") if launch else ())]
    command += ["--runs", *runs, "--data", "digits", "--device", "cpu", "--resolutions", *args.resolutions]
    command += ["--policy", "default", "all", "auto", "--batch-size", "12", *images]
    return [*command, "--out", str(args.out), "--table", "compact"]


def run(args: argparse.Namespace) -> None:
    """Train what is missing, measure what is missing, draw.

    Args:
        args: From :func:`parser`.

    Raises:
        scaling.errors.InputError: If an argument cannot be used, a training or the sweep fails.
    """
    # After parsing: these imports take seconds, --help should not.
    from resolution_scaling import make_console

    from scaling.errors import InputError
    from scaling.panels import draw_panels
    from scaling.protocols import PROTOCOLS
    from scaling.recipes import digit_trainings
    from scaling.trainings import train

    start, console = time.monotonic(), make_console()
    check_counts(args, "seeds", "jobs", "epochs")
    trainings = digit_trainings(args.encodings, seeds=args.seeds, data="digits", out=args.out, epochs=args.epochs)
    train(trainings, console, at_once=args.jobs)
    trained = time.monotonic()
    command = sweep_command(args, [str(training.directory) for training in trainings])
    code = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False).returncode
    if code:
        raise InputError(f"the sweep ended with exit code {code}; the same command goes on from there")
    results = json.loads((args.out / "results.json").read_text())
    for protocol in PROTOCOLS:
        draw_panels(args.out / f"panels_{protocol}.png", results["summary"], protocol)
    console.print(f"written: {args.out}/panels_{{{','.join(PROTOCOLS)}}}.png", highlight=False)
    seconds = trained - start, time.monotonic() - trained
    console.print(f"training {seconds[0]:.0f} s, evaluation {seconds[1]:.0f} s", style="dim", highlight=False)


def main(argv: Sequence[str] | None = None) -> int:
    """The program.

    Args:
        argv: Arguments, or None for those of the process.

    Returns:
        The exit code: 0, 2 for input that cannot be used or failed work, 130 when interrupted.
    """
    args = parser().parse_args(argv)
    return exit_code(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
