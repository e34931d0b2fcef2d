"""From nothing to accuracy against resolution in a few minutes on a CPU.

Trains one small vision transformer for each of several position encodings on real handwritten digits, evaluates each
at half to three times the size it was trained at, and leaves a table, a CSV, a JSON and a plot. Finished work is kept:
running it again resumes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from scaling.program import check_counts, digit_parser, exit_code

ENCODINGS = ("none", "ape", "rope_mixed", "cpe")
FACTORS = ("0.5x", "1x", "1.5x", "2x", "2.5x", "3x")
# A model runs under those of them that apply to it; `none` has nothing to adapt and runs as built.
POLICIES = ("bicubic", "extrapolate", "interpolate")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = digit_parser("quickstart.py", __doc__, encodings=ENCODINGS, seeds=1, out="work_dirs/quickstart")
    p.add_argument("--data", choices=("digits", "mnist"), default="digits", help="(default: %(default)s)")
    p.add_argument(
        "--policy",
        nargs="+",
        metavar="NAME",
        help=f"see resolution_scaling.py (default: those of {' '.join(POLICIES)} that apply)",
    )
    p.add_argument("--limit", type=int, metavar="N", help="evaluate on N images only, to try things out")
    return p


def run(args: argparse.Namespace) -> None:
    """Train what is missing, evaluate, and say what came out.

    Args:
        args: From :func:`parser`.

    Raises:
        scaling.errors.InputError: If an argument cannot be used or a training fails.
    """
    # After parsing: these imports take seconds, --help should not.
    import resolution_scaling

    from scaling.arguments import parser as scaling_parser
    from scaling.models import from_runs
    from scaling.recipes import digit_trainings
    from scaling.sweep import DEFAULT
    from scaling.trainings import train
    from scaling.words import closing

    start = time.monotonic()
    console = resolution_scaling.make_console()
    check_counts(args, "seeds", "jobs", "epochs", "limit")
    trainings = digit_trainings(args.encodings, seeds=args.seeds, data=args.data, out=args.out, epochs=args.epochs)
    train(trainings, console, at_once=args.jobs)
    trained = time.monotonic()

    runs = [str(training.directory) for training in trainings]
    applicable = {name for subject in from_runs(runs) for name in subject.facts.policies}
    policies = args.policy or [name for name in POLICIES if name in applicable] or [DEFAULT]
    command = ["--runs", *runs, "--data", args.data]
    command += ["--resolutions", *FACTORS, "--policy", *policies, "--out", str(args.out), "--table", "compact"]
    command += ["--limit", str(args.limit)] if args.limit else []
    lines = resolution_scaling.run(scaling_parser().parse_args(command), console)
    for sentence in closing(lines):
        console.print(f"• {sentence}", highlight=False)
    seconds = trained - start, time.monotonic() - trained
    console.print(f"training {seconds[0]:.0f} s, evaluation {seconds[1]:.0f} s", style="dim", highlight=False)


def main(argv: Sequence[str] | None = None) -> int:
    """The program.

    Args:
        argv: Arguments, or None for those of the process.

    Returns:
        The exit code: 0, 2 for input that cannot be used or a failed training, 130 when interrupted.
    """
    args = parser().parse_args(argv)
    return exit_code(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
