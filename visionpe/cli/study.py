"""Train small, run large: what every resolution policy does for eight encodings, on a CPU, in about an hour.

Trains small vision transformers on real handwritten digits, three seeds of each encoding; measures all their policies
at half to six times the trained size, under both protocols, beside the image resized to the trained size and beside
`auto`, which chooses a policy without labels; leaves tables, plots and a page. Finished work is kept: running it again
resumes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from visionpe.cli.common import digit_parser, exit_code
from visionpe.utils.locks import locked

ENCODINGS = ("ape", "rope_mixed", "rope_axial", "cpe", "rpb", "fire", "lookhere", "alibi")
FACTORS = ("0.5x", "1x", "1.5x", "2x", "3x", "4x", "6x")


def parser(prog: str = "visionpe study") -> argparse.ArgumentParser:
    """The command line."""
    p = digit_parser(prog, __doc__, encodings=ENCODINGS, seeds=3, out="work_dirs/study")
    p.add_argument(
        "--resolutions", nargs="+", default=list(FACTORS), metavar="SIZE", help=f"(default: {' '.join(FACTORS)})"
    )
    p.add_argument("--quick", action="store_true", help="24 images a row, to try things out")
    return p


def main(argv: Sequence[str] | None = None, prog: str = "visionpe study") -> int:
    """The program.

    Args:
        argv: Arguments, or None for those of the process.
        prog: What it is called.

    Returns:
        The exit code: 0, 2 for input that cannot be used or failed work, 130 when interrupted.
    """
    args = parser(prog).parse_args(argv)

    def work() -> None:
        with locked(args.out, "study"):
            from visionpe.quickstarts.study import run

            run(args)

    return exit_code(work)
