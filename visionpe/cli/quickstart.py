"""From nothing to a trained comparison in minutes on a CPU. Finished work is kept: the same command resumes.

    visionpe quickstart                  small ViTs on photographs, one an encoding: accuracy against resolution
    visionpe quickstart detection        a slim Mask R-CNN on scenes of digits: box and mask AP, drawn predictions
    visionpe quickstart segmentation     the same scenes: mIoU with the digits as classes, drawn predictions
    visionpe quickstart rooms            a tiny Swin3D on labelled rooms: mIoU against minutes, pages to turn

`visionpe quickstart rooms --help` and the like tell the options of each.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from visionpe.cli.common import cores, exit_code, make_parser, small_vit_parser
from visionpe.quickstarts.study_data import QUICKSTART_DATA
from visionpe.utils.locks import locked

POLICIES = ("bicubic", "extrapolate", "interpolate")
# Of the tiny models that label rooms: the encodings that they are compared with.
ROOMS = {"swin3d": ("crse", "rope_mixed", "none"), "ptv3": ("xcpe", "rope_axial", "none")}

CLASSIFICATION = """\
From nothing to accuracy against resolution in a few minutes on a CPU.

Trains one small vision transformer for each of several position encodings on real photographs, evaluates each at half
to three times the size it was trained at, and leaves a table, a CSV, a JSON and a plot. Finished work is kept: running
it again resumes.
"""
EPILOG = "data:\n" + "\n".join(
    f"  {name:7} {x.about}; encodings {' '.join(x.encodings)}" for name, x in QUICKSTART_DATA.items()
)
DETECTION = "From nothing to a slim Mask R-CNN on digit scenes: boxes, classes and masks, in minutes on a CPU."
SEGMENTATION = """\
From nothing to a small segmentation model on digit scenes, with the digits as classes, in minutes on a CPU."""
ROOMS_ABOUT = """\
From nothing to a tiny Swin3D or Point Transformer V3 that labels rooms, in minutes on a CPU: mIoU against minutes, a
page to turn.

Builds labelled rooms, trains one model for each position encoding, tests it on rooms of their own, and leaves a plot,
a table, a CSV, a JSON, and a page with a room that can be turned: its colours, labels and predictions. Finished work is
kept: running it again resumes.
"""


def classification_parser(prog: str) -> argparse.ArgumentParser:
    """The command line for small ViTs on photographs or digits."""
    p = small_vit_parser(prog, CLASSIFICATION, EPILOG, encodings=(), seeds=1, out="work_dirs/quickstart")
    names = tuple(QUICKSTART_DATA)
    p.add_argument("--data", choices=names, default=names[0], help="(default: %(default)s)")
    p.add_argument(
        "--policy",
        nargs="+",
        metavar="NAME",
        help=f"see `visionpe scaling` (default: those of {' '.join(POLICIES)} that apply)",
    )
    p.add_argument("--limit", type=int, metavar="N", help="evaluate on N images only, to try things out")
    return p


def _jobs_and_seed(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--jobs", type=int, default=cores(), metavar="N", help="trainings at once (default: cores, %(default)s)"
    )
    p.add_argument("--seed", type=int, default=0, metavar="N", help="(default: %(default)s)")


def dense_parser(prog: str, name: str) -> argparse.ArgumentParser:
    """The command line for detection or segmentation."""
    about, prefix, encoding = {
        "detection": (DETECTION, "mask_rcnn", "rope"),
        "segmentation": (SEGMENTATION, "fcn", "cpe"),
    }[name]
    p = make_parser(prog, about)
    p.add_argument(
        "--encodings",
        nargs="+",
        default=[encoding],
        metavar="NAME",
        help=f"those with a configs/digits/{prefix}_<name>_vit.py (default: {encoding})",
    )
    p.add_argument(
        "--scales",
        nargs="+",
        type=float,
        default=[1.0],
        metavar="X",
        help="test scales, such as 0.75 1 1.5 2 (default: 1)",
    )
    p.add_argument(
        "--data",
        type=Path,
        default=Path("data/digit_scenes"),
        metavar="DIR",
        help="digit scenes, written if missing (default: %(default)s)",
    )
    out = Path(f"work_dirs/quickstart_{name}")
    p.add_argument("--out", type=Path, default=out, metavar="DIR", help="(default: %(default)s)")
    p.add_argument("--iters", type=int, metavar="N", help="stop after N iterations of the schedule, to try things out")
    _jobs_and_seed(p)
    return p


def rooms_parser(prog: str) -> argparse.ArgumentParser:
    """The command line for labelled rooms."""
    p = make_parser(prog, ROOMS_ABOUT)
    p.add_argument("--backbone", choices=tuple(ROOMS), default="swin3d", help="(default: %(default)s)")
    p.add_argument("--encodings", nargs="+", metavar="NAME", help=f"(default: {' '.join(ROOMS['swin3d'])})")
    out = "work_dirs/quickstart_rooms"
    p.add_argument("--out", type=Path, metavar="DIR", help=f"(default: {out}, {out}_ptv3)")
    p.add_argument("--epochs", type=int, metavar="N", help="stop after N epochs of the schedule, to try things out")
    _jobs_and_seed(p)
    return p


def _run(place: str, args: argparse.Namespace, task: str | None = None) -> int:
    """Import ``run`` of a quickstart, which takes seconds, and run it alone in its folder."""

    def work() -> None:
        with locked(args.out, "quickstart"):
            run = import_module(f"visionpe.quickstarts.{place}").run
            run(args) if task is None else run(args, task)

    return exit_code(work)


def classification(argv: Sequence[str] | None = None, prog: str = "visionpe quickstart") -> int:
    """Small ViTs on photographs; returns the exit code: 0, 2 for bad input or failed trainings, 130 if interrupted."""
    return _run("classification", classification_parser(prog).parse_args(argv))


def _one_thread() -> None:
    # More threads than cores that are free make a training ten times slower.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def detection(argv: Sequence[str] | None = None, prog: str = "visionpe quickstart detection") -> int:
    """A slim Mask R-CNN on scenes of digits; returns the exit code."""
    args = dense_parser(prog, "detection").parse_args(argv)
    _one_thread()
    return _run("dense.run", args, "detection")


def segmentation(argv: Sequence[str] | None = None, prog: str = "visionpe quickstart segmentation") -> int:
    """A small segmentation model on scenes of digits; returns the exit code."""
    args = dense_parser(prog, "segmentation").parse_args(argv)
    _one_thread()
    return _run("dense.run", args, "segmentation")


def rooms(argv: Sequence[str] | None = None, prog: str = "visionpe quickstart rooms") -> int:
    """A tiny Swin3D on labelled rooms; returns the exit code."""
    args = rooms_parser(prog).parse_args(argv)
    args.encodings = args.encodings or list(ROOMS[args.backbone])
    args.out = args.out or Path(f"work_dirs/quickstart_rooms{'' if args.backbone == 'swin3d' else f'_{args.backbone}'}")
    _one_thread()
    return _run("rooms.run", args)


QUICKSTARTS: dict[str, Callable[..., int]] = {
    "classification": classification,
    "detection": detection,
    "segmentation": segmentation,
    "rooms": rooms,
}


def main(argv: Sequence[str] | None = None) -> int:
    """The program: the quickstart that the first argument names, classification by default."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] and arguments[0] in QUICKSTARTS:
        return QUICKSTARTS[arguments[0]](arguments[1:])
    if arguments[:1] and not arguments[0].startswith("-"):
        print(f"error: quickstart {arguments[0]!r} is unknown; allowed: {', '.join(QUICKSTARTS)}", file=sys.stderr)
        return 2
    if arguments in (["-h"], ["--help"]):
        print(__doc__)
    return classification(arguments)
