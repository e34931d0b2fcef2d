"""The command line of ``tools/resolution_scaling.py``."""

from __future__ import annotations

import argparse
import ast
import re
from pathlib import Path
from typing import Any

import torch

from scaling.controls import CONTROLS, DOWNSCALE
from scaling.data import EMBEDDED
from scaling.errors import InputError
from scaling.launch import LAUNCHERS
from scaling.protocols import PROTOCOLS

DESCRIPTION = """\
Accuracy, speed and memory of vision models against input resolution. Takes any timm model, ours or not, and trained
runs of tools/train.py; measures each under resolution policies and two protocols, beside controls that bring the
image to the trained size."""

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

  # the RoPE-ViT paper's models and sizes with every policy, the paper's own figures beside them, on 4 GPUs
  torchrun --nproc_per_node=4 tools/resolution_scaling.py --launcher pytorch --model ape_vit_s.naver_in1k \\
      --model rope_axial_vit_s --model rope_vit_s --pretrained --data /data/imagenet --crop-pct 1 --policy all \\
      --resolutions 144 192 224 256 320 384 512 640 768 1024 --protocol object

protocols:
  object   the image is resized to the resolution: objects grow with it
  canvas   objects keep the size they have at the trained resolution; the canvas around them grows (the image stands
           at a seeded random place on background), or, below the trained size, the centre is cut out

controls, which run the model as built at the size it was trained at:
  downscale  the image is resized to that size
  tiling     tiles of that size, as few as cover the image, are looked at one by one and their logits averaged

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


def fewer(text: str) -> tuple[float, int]:
    """Read one ``FACTORx=N`` of ``--fewer``.

    Raises:
        InputError: If it has no such form.
    """
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)x=(\d+)", text):
        factor, images = float(match[1]), int(match[2])
        if factor > 0 and images > 0:
            return factor, images
    raise InputError(f"--fewer {text}: not FACTORx=N (such as 3x=250), both above 0")


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
        help="weights, one for each --model (or --config) in the same order, or `none` for a --model",
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
    dense = p.add_argument_group("detection and segmentation")
    dense.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="FILE",
        help="a config of mmdet or mmseg, tested with a --checkpoint; repeatable. --resolutions are factors of its own "
        "test scale, --limit takes the first N pictures",
    )
    dense.add_argument(
        "--cfg-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="override entries of every --config, such as test_dataloader.batch_size=1",
    )
    dense.add_argument(
        "--crop",
        nargs="+",
        default=[],
        metavar="SIZE",
        help="segmentation: slide crops of this size (512, 512x384, or 1x of the trained crop) over the picture in "
        "steps of two thirds (default: test as the config does)",
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
        help="resolution policies: `default` (as built), `all` that apply, or names, also with a number or joined: "
        "`rescale(0.5)+temperature`; `auto`: chosen at each resolution from unlabelled images; a model to which none "
        "applies runs as built",
    )
    where.add_argument(
        "--auto-images", type=int, default=128, metavar="N", help="by which `auto` chooses (default: %(default)s)"
    )
    where.add_argument(
        "--auto-data",
        metavar="FOLDER",
        help="of these images, whose labels are not read (default: the validation split of embedded data, else --data)",
    )
    where.add_argument(
        "--controls",
        nargs="+",
        choices=(*CONTROLS, "none"),
        default=[DOWNSCALE],
        help="what needs no policy, for comparison (default: downscale)",
    )
    where.add_argument("--protocol", nargs="+", choices=PROTOCOLS, default=list(PROTOCOLS), help="(default: both)")
    where.add_argument("--limit", type=int, metavar="N", help="a seeded random choice of N images")
    where.add_argument(
        "--fewer",
        nargs="+",
        default=[],
        metavar="FACTORx=N",
        help="only N of them from FACTOR times the trained size on, where each costs more: 3x=250 6x=64",
    )
    where.add_argument(
        "--crop-pct",
        type=float,
        metavar="SHARE",
        help="of the resized image that is kept, 0 to 1 (default: the model's)",
    )
    where.add_argument("--skip-corrupt", action="store_true", help="leave unreadable images out, and report them")
    where.add_argument("--seed", type=int, default=0, help="of places, --limit and random weights (default: 0)")
    how = p.add_argument_group("how")
    how.add_argument("--batch-size", type=int, default=100, metavar="N", help="(default: %(default)s)")
    how.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(default: %(default)s)")
    how.add_argument("--amp", action="store_true", help="half precision by autocast (bfloat16 where it exists)")
    how.add_argument(
        "--num-workers", type=int, default=0, metavar="N", help="processes that prepare images (default: 0)"
    )
    how.add_argument(
        "--diagnostics",
        type=int,
        default=16,
        metavar="N",
        help="images a row on which to measure entropy and reach of attention, 0 for none (default: %(default)s)",
    )
    how.add_argument(
        "--launcher",
        choices=LAUNCHERS,
        default="none",
        help="how several processes were started, which share the rows; `pytorch` is torchrun (default: none)",
    )
    how.add_argument("--fresh", action="store_true", help="measure again what is already stored")
    out = p.add_argument_group("results")
    out.add_argument(
        "--out", type=Path, default=Path("work_dirs/resolution_scaling"), metavar="DIR", help="(default: %(default)s)"
    )
    out.add_argument("--table", choices=("full", "compact"), default="full", help="(default: %(default)s)")
    return p
