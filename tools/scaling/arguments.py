"""The command line of ``tools/resolution_scaling.py``."""

from __future__ import annotations

import argparse
import ast
from pathlib import Path
from typing import Any

import torch

from scaling.data import EMBEDDED
from scaling.errors import InputError
from scaling.protocols import PROTOCOLS

DESCRIPTION = """\
Accuracy, speed and memory of vision models against input resolution. Takes any timm model, ours or not, and trained
runs of tools/train.py; measures each under resolution policies and two protocols, beside a baseline (`downscale`)
that resizes the image to the trained size."""

EXAMPLES = """\
examples:
  # every run below a directory, at half to three times the size it was trained at
  python tools/resolution_scaling.py --runs work_dirs/quickstart --resolutions 0.5x 1x 2x 3x --policy all

  # one checkpoint on a folder of images, one sub-folder a class; non-square sizes are HEIGHTxWIDTH
  python tools/resolution_scaling.py --model rope_vit_b --checkpoint rope.safetensors --data /data/imagenet \\
      --resolutions 128 160 224 320 448 512x384 --policy extrapolate interpolate --amp

  # published weights of two models side by side
  python tools/resolution_scaling.py --model vit_small_patch16_224 --model vit_small_patch16_rope_224 --pretrained \\
      --data /data/imagenet --resolutions 224 320 448 --limit 5000

protocols:
  object   the image is resized to the resolution: objects grow with it
  canvas   objects keep the size they have at the trained resolution; the canvas around them grows (the image stands
           at a seeded random place on background), or, below the trained size, the centre is cut out

Finished rows are kept in OUT/rows: running the same command again goes on where it stopped. On a CPU, `ulimit -v`
turns a lack of memory into a row that says so, where the system would otherwise end the program.
"""


def keyword(text: str) -> tuple[str, Any]:
    """Read one ``KEY=VALUE`` of ``--model-kwargs``; a value that is no Python literal is text.

    Raises:
        InputError: If it has no such form.
    """
    key, separator, value = text.partition("=")
    if not separator or not key.isidentifier():
        raise InputError(f"--model-kwargs {text}: not KEY=VALUE (such as num_classes=10)")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:  # one line, where argparse would print the usage as well
        raise InputError(message)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = _Parser(
        prog="resolution_scaling.py",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = p.add_argument_group("what to measure")
    what.add_argument("--model", action="append", default=[], metavar="NAME", help="any timm model; repeatable")
    what.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        metavar="FILE",
        help="weights, one for each --model in the same order, or `none`",
    )
    what.add_argument("--pretrained", action="store_true", help="published weights where there is no --checkpoint")
    what.add_argument(
        "--model-kwargs",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="for timm.create_model, such as num_classes=10 img_size=24",
    )
    what.add_argument(
        "--runs", nargs="+", default=[], metavar="DIR", help="directories of trained runs, searched below"
    )
    where = p.add_argument_group("on what")
    where.add_argument(
        "--data",
        metavar="|".join((*EMBEDDED, "FOLDER")),
        help="embedded digits, or a folder of class folders, or one with such a val/ in it (default: what the runs "
        "were trained on, else digits)",
    )
    where.add_argument(
        "--resolutions",
        nargs="+",
        default=["0.5x", "1x", "1.5x", "2x", "3x"],
        metavar="SIZE",
        help="224, 512x384 (HEIGHTxWIDTH) or a factor of the trained size, 1.5x (default: %(default)s)",
    )
    where.add_argument(
        "--policy",
        nargs="+",
        default=["default"],
        metavar="NAME",
        help="resolution policies: `default` (as built), `all` that apply, or names; a model to which none applies "
        "runs as built",
    )
    where.add_argument("--protocol", nargs="+", choices=PROTOCOLS, default=list(PROTOCOLS), help="(default: both)")
    where.add_argument("--limit", type=int, metavar="N", help="a seeded random choice of N images")
    where.add_argument("--skip-corrupt", action="store_true", help="leave unreadable images out, and report them")
    where.add_argument("--seed", type=int, default=0, help="of places, --limit and random weights (default: 0)")
    how = p.add_argument_group("how")
    how.add_argument("--batch-size", type=int, default=100, metavar="N", help="(default: %(default)s)")
    how.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(default: %(default)s)")
    how.add_argument("--amp", action="store_true", help="half precision by autocast (bfloat16 where it exists)")
    how.add_argument(
        "--num-workers", type=int, default=0, metavar="N", help="processes that prepare images (default: 0)"
    )
    how.add_argument("--fresh", action="store_true", help="measure again what is already stored")
    out = p.add_argument_group("results")
    out.add_argument(
        "--out", type=Path, default=Path("work_dirs/resolution_scaling"), metavar="DIR", help="(default: %(default)s)"
    )
    out.add_argument("--table", choices=("full", "compact"), default="full", help="(default: %(default)s)")
    return p
