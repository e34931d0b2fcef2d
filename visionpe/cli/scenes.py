"""Write digit scenes: handwritten digits on cluttered canvases, as COCO json and as ADE20K directories.

    visionpe scenes
    visionpe scenes --out data/digit_scenes_large --size 96-256 --digit-size 20-64 --digits 1-8

OUT/coco and OUT/ade are laid out as COCO 2017 and ADE20K. A range "64-128" is drawn from uniformly, height and width
apart. Same seed, same bytes. Broken off, the same command goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from visionpe.cli.common import exit_code, make_parser
from visionpe.utils.files import check_output


def span(text: str) -> tuple[int, int]:
    """Parse ``64`` or ``64-128``."""
    low, _, high = text.partition("-")
    try:
        return int(low), int(high or low)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor a range such as 64-128") from None


def parser(prog: str) -> argparse.ArgumentParser:
    """The command line."""
    p = make_parser(prog, __doc__)
    p.add_argument(
        "--out", type=Path, default=Path("data/digit_scenes"), metavar="DIR", help="the folder (default: %(default)s)"
    )
    p.add_argument("--train", type=int, default=6000, metavar="N", help="training scenes (default: %(default)s)")
    p.add_argument("--val", type=int, default=200, metavar="N", help="validation scenes (default: %(default)s)")
    p.add_argument("--size", type=span, default="64", metavar="PX", help="canvas side in pixels (default: %(default)s)")
    p.add_argument(
        "--digit-size", type=span, default="20-28", metavar="PX", help="longer side of a digit (default: %(default)s)"
    )
    p.add_argument("--digits", type=span, default="1-4", metavar="N", help="digits in a scene (default: %(default)s)")
    p.add_argument(
        "--clutter", type=span, default="0-3", metavar="N", help="scribbles and fragments (default: %(default)s)"
    )
    p.add_argument("--seed", type=int, default=0, metavar="N", help="(default: %(default)s)")
    return p


def run(args: argparse.Namespace) -> None:
    """Write the scenes.

    Args:
        args: From :func:`parser`.

    Raises:
        ValueError: If a value cannot be used.
        FileExistsError: If the folder holds something else.
    """
    # After parsing: these imports take seconds, --help should not.
    from rich.console import Console

    from visionpe.data.digit_scenes.writing import SceneSettings, write_scenes
    from visionpe.utils.progress import SteadyProgress

    check_output(args.out, "--out", folder=True)
    console = Console(markup=False)
    options = {name: value for name, value in vars(args).items() if name != "out"}
    settings = SceneSettings(**options)
    with SteadyProgress(console=console) as progress:
        bar = progress.add_task("digit scenes", total=settings.train + settings.val)
        wrote = write_scenes(args.out, settings, lambda: progress.advance(bar))
        progress.update(bar, completed=settings.train + settings.val)
    console.print(f"{'written' if wrote else 'already there'}: {args.out}/coco, {args.out}/ade", highlight=False)


def main(argv: Sequence[str] | None = None, prog: str = "visionpe scenes") -> int:
    """The program; returns the exit code: 0, 2 for input that cannot be used, 130 when interrupted."""
    args = parser(prog).parse_args(argv)

    def work() -> int:
        try:
            run(args)
        except (ValueError, FileExistsError) as error:
            print(f"{prog}: error: {error}", file=sys.stderr)
            return 2
        return 0

    return exit_code(work)
