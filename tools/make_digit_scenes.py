"""Write digit scenes: handwritten digits on cluttered canvases, as COCO json and as ADE20K directories.

    python tools/make_digit_scenes.py
    python tools/make_digit_scenes.py --out data/digit_scenes_large --size 96-256 --digit-size 20-64 --digits 1-8

OUT/coco and OUT/ade are laid out as COCO 2017 and ADE20K. A range "64-128" is drawn from uniformly, height and width
apart. Same seed, same bytes. Broken off, the same command goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def span(text: str) -> tuple[int, int]:
    """Parse ``64`` or ``64-128``."""
    low, _, high = text.partition("-")
    try:
        return int(low), int(high or low)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor a range such as 64-128") from None


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from visionpe.detection.scenes import SceneSettings, write_scenes

    console = Console()
    options = {name: value for name, value in vars(args).items() if name != "out"}
    settings = SceneSettings(**options)
    columns = (TextColumn("digit scenes"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=settings.train + settings.val)
        wrote = write_scenes(args.out, settings, lambda: progress.advance(bar))
        progress.update(bar, completed=settings.train + settings.val)
    console.print(f"{'written' if wrote else 'already there'}: {args.out}/coco, {args.out}/ade", highlight=False)


def main(argv: Sequence[str] | None = None) -> int:
    """The program.

    Args:
        argv: Arguments, or None for those of the process.

    Returns:
        The exit code: 0, 2 for input that cannot be used, 130 when interrupted.
    """
    args = parser().parse_args(argv)
    try:
        run(args)
    except (ValueError, FileExistsError) as error:
        print(f"make_digit_scenes.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from there", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
