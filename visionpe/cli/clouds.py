"""What the commands about point clouds share: which cloud, seen from where, written to where."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from visionpe.utils.errors import InputError
from visionpe.utils.files import check_output

if TYPE_CHECKING:
    from visionpe.viewing.clouds.camera import View
    from visionpe.viewing.clouds.cloud import Cloud


def source_arguments(p: argparse.ArgumentParser) -> None:
    """What to look at, and from where."""
    p.add_argument("file", nargs="?", type=Path, metavar="FILE", help=".npz, .npy or .ply")
    p.add_argument("--room", type=int, metavar="SEED", help="a room built by rule")
    p.add_argument("--motorcycle", action="store_true", help="the Middlebury motorcycle, a real scan")
    p.add_argument("--classes", metavar="A,B,...", help="names of the classes of FILE")
    p.add_argument("--top", type=float, metavar="METRES", help="leave out what is higher above the lowest point")
    p.add_argument("--out", type=Path, metavar="PATH", help="without a suffix (default: the name of the cloud)")
    p.add_argument("--azimuth", type=float, metavar="DEG", help="place of the camera about z; -90 looks along y")
    p.add_argument("--elevation", type=float, metavar="DEG", help="place of the camera above the horizon, -89 to 89")
    p.add_argument(
        "--most", type=int, default=200_000, metavar="N", help="points in the page (default: %(default)s, at random)"
    )


def load(args: argparse.Namespace) -> Cloud:
    """The cloud that the arguments name.

    Raises:
        InputError: If none or several are named, or it cannot be used.
    """
    from visionpe.viewing.clouds.cloud import read_cloud
    from visionpe.viewing.clouds.sources import motorcycle, room

    if (args.file is not None) + (args.room is not None) + args.motorcycle != 1:
        raise InputError("give one of FILE, --room SEED, --motorcycle")
    if args.classes and args.file is None:
        raise InputError("--classes: only for a FILE; rooms bring their own, the motorcycle has none")
    if args.out is not None:
        for suffix in (".html", ".png"):
            check_output(args.out.with_name(args.out.name + suffix), "--out")
    if args.most < 1:
        raise InputError(f"--most {args.most}: must be at least 1")
    if args.file is not None:
        names = [name.strip() for name in args.classes.split(",")] if args.classes else ()
        cloud = read_cloud(args.file, names)
    else:
        cloud = motorcycle() if args.motorcycle else room(args.room)
    if args.top is None:
        return cloud
    kept = cloud.points[:, 2] <= cloud.points[:, 2].min() + args.top
    if not kept.any():
        raise InputError(f"--top {args.top}: leaves no point")
    return cloud.chosen(kept)


def view_of(args: argparse.Namespace) -> View:
    """Where the cloud is seen from; the motorcycle from the front, where its camera stood.

    Raises:
        InputError: If an angle is out of range.
    """
    from visionpe.viewing.clouds.camera import View

    default = View(-75.0, 12.0) if args.motorcycle else View()
    azimuth = default.azimuth if args.azimuth is None else args.azimuth
    elevation = default.elevation if args.elevation is None else args.elevation
    if not abs(azimuth) <= 360:
        raise InputError(f"--azimuth {azimuth}: must be -360 to 360")
    if not abs(elevation) <= 89:
        raise InputError(f"--elevation {elevation}: must be -89 to 89")
    return View(azimuth, elevation)


def write(args: argparse.Namespace, cloud: Cloud, *, start: str = "RGB") -> list[Path]:
    """Write the page and the picture and say so; the files."""
    from visionpe.viewing.clouds.write import write_views

    files, inside = write_views(cloud, args.out, view_of(args), most=args.most, start=start)
    of = "" if inside == cloud.count else f", {inside:,} of {cloud.count:,} points at random"
    print(f"{files[0]}: {files[0].stat().st_size / 1e6:.1f} MB{of}")
    print(files[1])
    return files
