"""A point cloud through a model, end to end: points to voxels, the model, scores back to the points; looked at.

    python tools/predict_scan.py --motorcycle
    python tools/predict_scan.py --motorcycle --model swin3d_s
    python tools/predict_scan.py --room 5 --config configs/rooms/swin3d_tiny_crse.py --checkpoint F
    python tools/predict_scan.py scan.ply --model swin3d_s_unet --checkpoint F --model-kwargs num_classes=13

Writes OUT.html and OUT.png, as tools/show_points.py does, and prints how long each part took. Without a checkpoint the
weights are random: points then show the main directions of the features, not classes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from show_points import load, source_arguments, view_of, write

from scaling.errors import InputError
from scaling.program import exit_code


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source_arguments(p)
    p.add_argument(
        "--model", default="swin3d_s_unet", metavar="NAME", help="timm model that takes voxels (default: %(default)s)"
    )
    p.add_argument("--config", metavar="FILE", help="config of a trained model, in place of --model")
    p.add_argument("--checkpoint", metavar="FILE", help="weights that fit; random ones without")
    p.add_argument("--model-kwargs", nargs="+", default=[], metavar="KEY=VALUE", help="for timm.create_model")
    p.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="override entries of --config")
    p.add_argument(
        "--voxel", type=float, metavar="METRES", help="side of a voxel (default: 0.02, or what the config says)"
    )
    p.add_argument("--device", default="cpu", metavar="NAME", help="such as cpu or cuda:0 (default: %(default)s)")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="of random weights (default: %(default)s)")
    return p


def pairs(flag: str, texts: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` to a dictionary; a value that is no Python literal is text."""
    import ast

    found: dict[str, Any] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not (key and separator):
            raise InputError(f"{flag} {text}: not KEY=VALUE (such as num_classes=13)")
        try:
            found[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[key] = value
    return found


def check(args: argparse.Namespace) -> None:
    """Refuse arguments that do not go together, before anything long.

    Raises:
        InputError: Names the argument.
    """
    view_of(args)
    if args.config and not args.checkpoint:
        raise InputError("--config needs --checkpoint: an untrained model can be had by --model")
    if args.config and (args.model_kwargs or args.voxel is not None):
        raise InputError("--config says what the model is: --model-kwargs and --voxel go with --model")
    if args.cfg_options and not args.config:
        raise InputError("--cfg-options goes with --config")
    if args.voxel is not None and not args.voxel > 0:
        raise InputError(f"--voxel {args.voxel}: must be above 0 metres")
    if args.checkpoint and not Path(args.checkpoint).expanduser().is_file():
        raise InputError(f"--checkpoint {args.checkpoint}: no such file")


def run(args: argparse.Namespace) -> list[Path]:
    """Predict, write and report.

    Args:
        args: From :func:`parser`.

    Returns:
        The files written.

    Raises:
        InputError: If an argument cannot be used.
    """
    check(args)
    cloud = load(args)
    # After the checks: these imports take seconds.
    import torch
    from rich.console import Console

    from points.report import show
    from points.scan import from_config, from_name, process
    from scaling.memory import peak_memory

    console = Console()
    try:
        device = torch.device(args.device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {args.device}: cannot be used ({str(error).splitlines()[0]})") from None
    torch.manual_seed(args.seed)
    with console.status("building the model"):
        if args.config:
            subject = from_config(args.config, args.checkpoint, pairs("--cfg-options", args.cfg_options))
        else:
            options = pairs("--model-kwargs", args.model_kwargs)
            subject = from_name(args.model, args.checkpoint, args.voxel or 0.02, options)
    with console.status(f"{cloud.count:,} points through the model"), peak_memory(device) as memory:
        outcome = process(cloud, subject, device)
    if not subject.trained:
        console.print("note: random weights; points are coloured by features, not by class", style="yellow")
    show(console, outcome, memory["bytes"])
    return write(args, outcome.cloud, start="prediction" if subject.trained else "features")


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit code: 0, 2 for input that cannot be used, 130 when interrupted."""
    args = parser().parse_args(argv)
    return exit_code(lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
