"""Look at a point cloud: a page to turn it in, and a picture.

    visionpe points scan.ply
    visionpe points --room 3 --out room
    visionpe points --motorcycle
    visionpe points predict --motorcycle          run a model on a cloud: `visionpe points predict --help`

Writes OUT.html, one file that needs no network, and OUT.png. Files: .npz (points, colors, labels, predictions,
normals), .npy (x y z, r g b, label, prediction) or .ply; all but the points may be missing. Metres, z up.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from visionpe.cli.clouds import load, source_arguments, view_of, write
from visionpe.cli.common import exit_code, make_parser


def parser(prog: str = "visionpe points") -> argparse.ArgumentParser:
    """The command line."""
    p = make_parser(prog, __doc__)
    source_arguments(p)
    return p


def run(args: argparse.Namespace) -> list[Path]:
    """Read and write.

    Args:
        args: From :func:`parser`.

    Returns:
        The files written.

    Raises:
        InputError: If an argument cannot be used.
    """
    view_of(args)  # before anything long
    return write(args, load(args))


def main(argv: Sequence[str] | None = None, prog: str = "visionpe points") -> int:
    """The program; returns the exit code: 0, 2 for input that cannot be used, 130 when interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["predict"]:
        from visionpe.cli import points_predict

        return points_predict.main(arguments[1:])
    args = parser(prog).parse_args(arguments)
    return exit_code(lambda: run(args))
