"""What does each position encoding cost? Latency and memory as ratios to no encoding at all, in one run.

Every encoding is timed in turn with the others (interleaved rounds, medians with quartiles), and, where other code does
the same, against that with the same weights: timm's attention modules, iRPE by its paper's matrix, timm's models.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from visionpe.benchmarks.options import BACKBONES, HEADS, KERNELS, LEVELS, PASSES
from visionpe.cli.common import exit_code, make_parser
from visionpe.utils.files import check_output

EXAMPLES = """\
examples:
  visionpe benchmark --encodings ape rope_mixed "irpe(method=cross, on=qkv)" --resolutions 224 512
  visionpe benchmark --level attention --resolutions 512 1024 --pass forward backward
  visionpe benchmark --level core --encodings decomposed irpe --kernels auto sdpa math --resolutions 256
  visionpe benchmark --level core --resolutions 2048 --memory-only

levels:
  core       what an encoding does to queries, keys, values and logits, and attention itself; no linear layers
  attention  the attention module of a ViT-S; peers are timm's modules, with our weights
  block      a transformer block
  model      the whole ViT-S; peers are timm's models

other benchmarks:
  visionpe benchmark backbones   Swin, ViTDet and CSWin against other code with the same weights
  visionpe benchmark mixed       images of several sizes in one batch, against all of one size
  visionpe benchmark swin3d      cRSE attention among voxels
  visionpe benchmark voxels      whole models over voxels: Swin3D, Point Transformer V3
"""
SWIN3D = """\
How fast is cRSE attention among voxels? Ours against a loop over windows and one flat list of pairs, in one run.

Windows of 5 voxels, position and colour as signals, in rooms of 2 cm voxels and in a real scan. Rows of the tables are
worked out beforehand for all three; forward and backward pass are timed apart, formulations in turn, and their outputs
compared.

  visionpe benchmark swin3d --voxels 20000 40000 80000 --scan
"""


def encodings_parser(prog: str = "visionpe benchmark") -> argparse.ArgumentParser:
    """The command line for encodings."""
    p = make_parser(prog, __doc__, EXAMPLES)
    what = p.add_argument_group("what to measure")
    what.add_argument(
        "--encodings",
        nargs="+",
        default=["all"],
        metavar="SPEC",
        help="names, a+b, a(b), name(option=value), or all (default: all)",
    )
    what.add_argument("--level", nargs="+", choices=LEVELS, default=["model"], help="(default: model)")
    what.add_argument(
        "--resolutions", nargs="+", type=int, default=[224], metavar="PIXELS", help="multiples of 16 (default: 224)"
    )
    what.add_argument(
        "--pass",
        nargs="+",
        dest="passes",
        choices=tuple(PASSES),
        default=["forward"],
        help="backward is the forward pass with the gradient (default: forward)",
    )
    what.add_argument(
        "--kernels",
        nargs="+",
        choices=KERNELS,
        default=["auto"],
        help="at level core; of several, the difference from the first is told (default: auto)",
    )
    what.add_argument("--no-peers", dest="peers", action="store_false", help="leave other code out")
    what.add_argument(
        "--memory-only",
        action="store_true",
        help="one call of each, in a process of its own, for its peak memory; no peers",
    )
    how = p.add_argument_group("how")
    how.add_argument("--amp", action="store_true", help="bfloat16 autocast")
    how.add_argument("--compile", action="store_true", help="through torch.compile")
    how.add_argument("--batch-size", type=int, default=1, metavar="N", help="(default: %(default)s)")
    how.add_argument(
        "--prefix",
        type=int,
        default=0,
        metavar="N",
        help="class tokens, at all levels but model, which has one; peers take none (default: %(default)s)",
    )
    how.add_argument("--heads", type=int, default=HEADS, metavar="N", help="at level core (default: %(default)s)")
    how.add_argument("--repeats", type=int, default=15, metavar="N", help="rounds that count (default: %(default)s)")
    how.add_argument("--threads", type=int, metavar="N", help="of the CPU; default: PyTorch's own choice")
    how.add_argument("--device", metavar="NAME", help="(default: cuda where there is a GPU, else cpu)")
    out = p.add_argument_group("results")
    out.add_argument(
        "--out", type=Path, default=Path("work_dirs/benchmark"), metavar="DIR", help="(default: %(default)s)"
    )
    out.add_argument("--name", default="benchmark", help="of the files: .md .csv .json .png (default: %(default)s)")
    return p


def backbones_parser(prog: str = "visionpe benchmark backbones") -> argparse.ArgumentParser:
    """The command line for backbones."""
    p = make_parser(prog, "How fast are the backbones? Each against other code with the same weights, in one run.")
    p.add_argument("--backbones", nargs="+", choices=BACKBONES, default=list(BACKBONES))
    p.add_argument(
        "--adapted",
        nargs="+",
        default=[],
        metavar="NAME",
        help="models of timm's in place of these: each adapted by visionpe.adapt, against itself",
    )
    p.add_argument("--resolutions", nargs="+", type=int, default=[224], metavar="PIXELS", help="multiples of 32")
    p.add_argument("--batch-size", type=int, default=1, metavar="N")
    p.add_argument("--repeats", type=int, default=11, metavar="N", help="rounds that count (default: %(default)s)")
    p.add_argument("--threads", type=int, metavar="N", help="of the CPU; default: PyTorch's own choice")
    p.add_argument("--device", metavar="NAME", help="(default: cuda where there is a GPU, else cpu)")
    p.add_argument("--out", type=Path, default=Path("work_dirs/benchmark"), metavar="DIR")
    p.add_argument("--name", default="backbones", help="of the files: .md .csv .json (default: %(default)s)")
    return p


def mixed_parser(prog: str = "visionpe benchmark mixed") -> argparse.ArgumentParser:
    """The command line for images of several sizes."""
    about = "What do images of several sizes in one batch cost? 64 photographs, against all resized to one size."
    p = make_parser(prog, about)
    p.add_argument(
        "--models", nargs="+", default=["rope_axial_vit_s"], metavar="NAME", help="ViTs (default: %(default)s)"
    )
    p.add_argument("--pixels", type=int, default=224, metavar="N", help="side of the one size (default: %(default)s)")
    p.add_argument("--repeats", type=int, default=7, metavar="N", help="rounds that count (default: %(default)s)")
    p.add_argument("--threads", type=int, metavar="N", help="of the CPU; default: PyTorch's own choice")
    p.add_argument("--device", metavar="NAME", help="(default: cuda where there is a GPU, else cpu)")
    p.add_argument("--out", type=Path, default=Path("work_dirs/benchmark"), metavar="DIR")
    p.add_argument("--name", default="mixed", help="of the files: .md .csv .json (default: %(default)s)")
    return p


def swin3d_parser(prog: str = "visionpe benchmark swin3d") -> argparse.ArgumentParser:
    """The command line for attention among voxels."""
    p = make_parser(prog, SWIN3D)
    p.add_argument("--voxels", nargs="+", type=int, default=[20000, 40000, 80000], metavar="N", help="of the rooms")
    p.add_argument("--scan", action="store_true", help="the motorcycle too; needs visionpe[detection,data]")
    p.add_argument(
        "--loop-up-to",
        type=int,
        default=30000,
        metavar="N",
        help="voxels; its memory grows by a gigabyte for every few thousand (default: %(default)s)",
    )
    p.add_argument("--flat-up-to", type=int, default=80000, metavar="N", help="voxels (default: %(default)s)")
    p.add_argument("--heads", type=int, default=6, metavar="N", help="(default: %(default)s)")
    p.add_argument("--head-dim", type=int, default=16, metavar="N", help="(default: %(default)s)")
    p.add_argument("--repeats", type=int, default=5, metavar="N", help="rounds that count (default: %(default)s)")
    p.add_argument("--no-memory", dest="memory", action="store_false", help="leave the peaks out")
    p.add_argument("--threads", type=int, metavar="N", help="of the CPU; default: PyTorch's own choice")
    p.add_argument("--device", metavar="NAME", help="(default: cuda where there is a GPU, else cpu)")
    p.add_argument(
        "--out", type=Path, default=Path("work_dirs/benchmark"), metavar="DIR", help="(default: %(default)s)"
    )
    p.add_argument("--name", default="swin3d_attention", help="of the files: .md .json .png (default: %(default)s)")
    return p


def voxels_parser(prog: str = "visionpe benchmark voxels") -> argparse.ArgumentParser:
    """The command line for models over voxels."""
    about = "What do whole models over voxels cost? Several in turn, on rooms of 2 cm voxels; ratios to the first."
    p = make_parser(prog, about)
    models = ["swin3d_s_unet", "ptv3_b_unet"]
    p.add_argument("--models", nargs="+", default=models, metavar="NAME", help=f"(default: {' '.join(models)})")
    p.add_argument("--voxels", nargs="+", type=int, default=[20000, 80000], metavar="N", help="of the rooms")
    p.add_argument("--pass", nargs="+", dest="passes", choices=tuple(PASSES), default=["forward"])
    p.add_argument("--repeats", type=int, default=5, metavar="N", help="rounds that count (default: %(default)s)")
    p.add_argument("--threads", type=int, metavar="N", help="of the CPU; default: PyTorch's own choice")
    p.add_argument("--device", metavar="NAME", help="(default: cuda where there is a GPU, else cpu)")
    p.add_argument("--out", type=Path, default=Path("work_dirs/benchmark"), metavar="DIR")
    p.add_argument("--name", default="voxel_models", help="of the files: .md .json (default: %(default)s)")
    return p


def encodings(argv: Sequence[str] | None = None, prog: str = "visionpe benchmark") -> int:
    """The benchmark of encodings; returns the exit code: 0, 1 where a peer differs, 2 for bad input."""
    args = encodings_parser(prog).parse_args(argv)

    def work() -> int:
        check_output(args.out, "--out", folder=True)
        from visionpe.benchmarks.encodings import run
        from visionpe.benchmarks.peers import MismatchError
        from visionpe.utils.console import wide_console

        try:
            run(args, wide_console(150))
        except MismatchError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        return 0

    return exit_code(work)


def _run(module: str, args: argparse.Namespace) -> int:
    """A benchmark of :mod:`visionpe.benchmarks`; returns the exit code."""

    def work() -> None:
        check_output(args.out, "--out", folder=True)
        from rich.console import Console

        import_module(f"visionpe.benchmarks.{module}").run(args, Console(markup=False))

    return exit_code(work)


def backbones(argv: Sequence[str] | None = None, prog: str = "visionpe benchmark backbones") -> int:
    """The benchmark of backbones; returns the exit code, 2 for bad input."""
    return _run("backbones", backbones_parser(prog).parse_args(argv))


def mixed(argv: Sequence[str] | None = None, prog: str = "visionpe benchmark mixed") -> int:
    """The benchmark of images of several sizes; returns the exit code, 2 for bad input."""
    return _run("mixed", mixed_parser(prog).parse_args(argv))


def swin3d(argv: Sequence[str] | None = None, prog: str = "visionpe benchmark swin3d") -> int:
    """The benchmark of attention among voxels; returns the exit code, 2 for bad input."""
    return _run("voxels", swin3d_parser(prog).parse_args(argv))


def voxels(argv: Sequence[str] | None = None, prog: str = "visionpe benchmark voxels") -> int:
    """The benchmark of models over voxels; returns the exit code, 2 for bad input."""
    return _run("voxel_models", voxels_parser(prog).parse_args(argv))


BENCHMARKS: dict[str, Callable[..., int]] = {
    "encodings": encodings,
    "backbones": backbones,
    "mixed": mixed,
    "swin3d": swin3d,
    "voxels": voxels,
}


def main(argv: Sequence[str] | None = None) -> int:
    """The program: the benchmark that the first argument names, that of encodings by default."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] and arguments[0] in BENCHMARKS:
        return BENCHMARKS[arguments[0]](arguments[1:])
    return encodings(arguments)
