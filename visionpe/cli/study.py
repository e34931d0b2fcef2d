"""Train small, run large: what every resolution policy does for eight encodings.

Trains small vision transformers on one data set, three seeds of each encoding; measures all their policies at sizes
below and above the trained one, beside the image resized to the trained size and beside `auto`, which chooses a policy
without labels; leaves tables, plots and a page. Finished work is kept: running it again resumes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from visionpe.cli.common import exit_code, key_values, small_vit_parser
from visionpe.quickstarts.study_data import STUDY_DATA
from visionpe.utils.locks import locked

ENCODINGS = ("ape", "rope_mixed", "rope_axial", "cpe", "rpb", "fire", "lookhere", "alibi")
EPILOG = "data:\n" + "\n".join(
    f"  {name:10}  {study.about}; {' '.join(study.resolutions)}" for name, study in STUDY_DATA.items()
)


def parser(prog: str = "visionpe study") -> argparse.ArgumentParser:
    """The command line."""
    p = small_vit_parser(prog, __doc__, EPILOG, encodings=ENCODINGS, seeds=3, out="work_dirs/study/<data>")
    p.add_argument("--data", choices=tuple(STUDY_DATA), default="digits", help="(default: %(default)s)")
    p.add_argument("--resolutions", nargs="+", metavar="SIZE", help="(default: those of the data, see below)")
    p.add_argument("--device", default="cpu", metavar="NAME", help="for measuring (default: %(default)s)")
    p.add_argument("--quick", action="store_true", help="24 images a row, to try things out")
    p.add_argument(
        "--executor",
        choices=("local", "slurm"),
        default="local",
        help="where trainings and the measurement run: processes here, or jobs of a cluster by submitit, in the "
        "`cluster` extra; then --jobs are those in the queue at once (default: %(default)s)",
    )
    p.add_argument(
        "--job-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="of jobs, as submitit takes them: timeout_min=240 cpus_per_task=4 slurm_partition=cpu",
    )
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
    args.out = Path(str(args.out).replace("<data>", args.data))

    def work() -> None:
        args.job_options = key_values("--job-options", args.job_options, "timeout_min=240")
        with locked(args.out, "study"):
            from visionpe.quickstarts.study import run

            run(args)

    return exit_code(work)
