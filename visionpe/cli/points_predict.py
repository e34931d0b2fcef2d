"""A point cloud through a model, end to end: points to voxels, the model, scores back to the points; looked at.

    visionpe points predict --motorcycle
    visionpe points predict --motorcycle --model swin3d_s
    visionpe points predict --motorcycle --model ptv3_b_unet
    visionpe points predict --room 5 --config rooms/swin3d_tiny_crse.py --checkpoint F
    visionpe points predict scan.ply --model swin3d_s_unet --checkpoint F --model-kwargs num_classes=13

Writes OUT.html and OUT.png, as `visionpe points` does, and prints how long each part took. Without a checkpoint the
weights are random: points then show the main directions of the features, not classes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from visionpe.cli.clouds import load, source_arguments, view_of, write
from visionpe.cli.common import exit_code, key_values, make_parser, trust_option
from visionpe.utils.errors import InputError, check_seed


def parser(prog: str = "visionpe points predict") -> argparse.ArgumentParser:
    """The command line."""
    p = make_parser(prog, __doc__)
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
    trust_option(p)
    return p


def check(args: argparse.Namespace) -> None:
    """Refuse arguments that do not go together, before anything long.

    Raises:
        InputError: Names the argument.
    """
    view_of(args)
    check_seed(args.seed)
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

    from visionpe.detection.clouds.scan import from_config, from_name, run_model
    from visionpe.detection.clouds.scan_report import show
    from visionpe.utils.device import open_device
    from visionpe.utils.memory import peak_memory

    console = Console(markup=False)
    device = open_device(args.device)
    torch.manual_seed(args.seed)
    with console.status("building the model"):
        if args.config:
            entry = from_config(args.config, args.checkpoint, key_values("--cfg-options", args.cfg_options))
        else:
            options = key_values("--model-kwargs", args.model_kwargs)
            voxel, normals = args.voxel or 0.02, cloud.normals is not None
            entry = from_name(args.model, args.checkpoint, voxel, options, has_normals=normals)
    with console.status(f"{cloud.count:,} points through the model"), peak_memory(device) as memory:
        outcome = run_model(cloud, entry, device)
    if not entry.trained:
        console.print("note: random weights; points are coloured by features, not by class", style="yellow")
    show(console, outcome, memory["bytes"])
    return write(args, outcome.cloud, start="prediction" if entry.trained else "features")


def main(argv: Sequence[str] | None = None, prog: str = "visionpe points predict") -> int:
    """The program; returns the exit code: 0, 2 for input that cannot be used, 130 when interrupted."""
    args = parser(prog).parse_args(argv)
    return exit_code(lambda: run(args))
