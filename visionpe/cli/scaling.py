"""Accuracy, speed and memory of models against the input resolution: the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visionpe.cli.common import exit_code, key_values, trust_option
from visionpe.scaling.options import BY_NAME, CONTROLS, LAUNCHERS, METRICS, NATIVE, PROBES, PROTOCOLS, StudyOptions
from visionpe.utils.errors import InputError

DESCRIPTION = """\
Accuracy, speed and memory of vision models against input resolution. Takes any timm model, ours or not, and trained
runs of `visionpe train`; measures each under resolution policies and protocols, beside controls that bring the
image to the trained size."""

EXAMPLES = """\
examples:
  # every run below a directory, at half to three times the size it was trained at
  visionpe scaling --runs work_dirs/quickstart --resolutions 0.5x 1x 2x 3x --policy all

  # one checkpoint on a folder of images, one sub-folder a class; non-square sizes are HEIGHTxWIDTH
  visionpe scaling --model rope_vit_b --checkpoint rope.safetensors --data /data/imagenet \\
      --resolutions 128 160 224 320 448 512x384 --policy extrapolate interpolate --amp

  # published weights of two models side by side
  visionpe scaling --model vit_small_patch16_224 --model vit_small_patch16_rope_224 --pretrained \\
      --data /data/imagenet --resolutions 224 320 448 --limit 5000

  # the RoPE-ViT paper's models and sizes with every policy, the paper's own figures beside them, on 4 GPUs
  torchrun --nproc_per_node=4 -m visionpe scaling --launcher pytorch --model ape_vit_s.naver_in1k \\
      --model rope_axial_vit_s --model rope_vit_s --pretrained --data /data/imagenet --crop-pct 1 --policy all \\
      --resolutions 144 192 224 256 320 384 512 640 768 1024 --protocol object

protocols:
  object   the image is resized to the resolution: objects grow with it
  canvas   objects keep the size they have at the trained resolution; the canvas around them grows (the image stands
           at a seeded random place on background), or, below the trained size, the centre is cut out
  native   every image keeps its aspect ratio, and is resized to as many patches as the resolution has, at most; those
           of several sizes share a batch (ViTs, ViTDet, and timm's ViTs, adapted)

controls, which run the model as built at the size it was trained at:
  downscale  the image is resized to that size
  tiling     tiles of that size, as few as cover the image, are looked at one by one and their logits averaged

Finished rows are kept in OUT/rows: running the same command again goes on where it stopped. On a CPU, `ulimit -v`
turns a lack of memory into a row that says so, where the system would otherwise end the program.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:  # one line, where argparse would print the usage as well
        raise InputError(message)


def parser(prog: str = "visionpe scaling") -> argparse.ArgumentParser:
    """The command line; its defaults are those of :class:`~visionpe.scaling.options.StudyOptions`."""
    p = _Parser(
        prog=prog,
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = p.add_argument_group("what to measure")
    what.add_argument("--model", action="append", metavar="NAME", help="any timm model; repeatable")
    what.add_argument(
        "--checkpoint",
        action="append",
        metavar="FILE",
        help="weights, one for each --model (or --config) in the same order, or `none` for a --model",
    )
    what.add_argument("--pretrained", action="store_true", help="published weights where there is no --checkpoint")
    what.add_argument(
        "--model-kwargs",
        nargs="+",
        metavar="KEY=VALUE",
        help="for timm.create_model, such as num_classes=10 img_size=24",
    )
    what.add_argument(
        "--probe",
        choices=PROBES,
        help="freeze the model and fit a classifier on its features of the training split of --data at the trained "
        "size: a logistic regression, or the 20 nearest neighbours (scikit-learn, the `data` extra)",
    )
    what.add_argument(
        "--trained-size",
        metavar="SIZE",
        help="224 or HEIGHTxWIDTH, at which the weights were trained, where that is not what the model was built for: "
        "factors and controls are of it",
    )
    what.add_argument("--runs", nargs="+", metavar="DIR", help="directories of trained runs, searched below")
    dense = p.add_argument_group("detection and segmentation")
    dense.add_argument(
        "--config",
        action="append",
        metavar="FILE",
        help="a config of mmdet or mmseg, tested with a --checkpoint; repeatable. --resolutions are factors of its own "
        "test scale, --limit takes the first N pictures",
    )
    dense.add_argument(
        "--cfg-options",
        nargs="+",
        metavar="KEY=VALUE",
        help="override entries of every --config, such as test_dataloader.batch_size=1",
    )
    dense.add_argument(
        "--crop",
        nargs="+",
        metavar="SIZE",
        help="segmentation: slide crops of this size (512, 512x384, or 1x of the trained crop) over the picture in "
        "steps of two thirds (default: test as the config does)",
    )
    where = p.add_argument_group("on what")
    where.add_argument(
        "--data",
        metavar="|".join((*BY_NAME, "FOLDER")),
        help="a data set by name, or a folder of class folders, or one with such a val/ in it (default: what the runs "
        "were trained on, else digits)",
    )
    where.add_argument(
        "--class-map",
        metavar="FILE",
        help="labels of the folders of --data: .txt, a name a line, as timm has it, or .json, a list or name: label "
        "(default: by name, numbers by value, 2 before 10)",
    )
    where.add_argument(
        "--resolutions",
        nargs="+",
        metavar="SIZE",
        help="224, 512x384 (HEIGHTxWIDTH) or a factor of the trained size, 1.5x (default: %(default)s)",
    )
    where.add_argument(
        "--policy",
        nargs="+",
        metavar="NAME",
        help="resolution policies: `default` (as built), `all` that apply, or names, also with a number or joined: "
        "`rescale(0.5)+temperature`; `auto`: chosen at each resolution from unlabelled images; a model to which none "
        "applies runs as built",
    )
    where.add_argument("--auto-images", type=int, metavar="N", help="by which `auto` chooses (default: %(default)s)")
    where.add_argument(
        "--auto-data",
        metavar="FOLDER",
        help="of these images, whose labels are not read (default: the validation split of embedded data, else --data)",
    )
    where.add_argument(
        "--metric",
        choices=METRICS,
        help="by which results are read: top1, or balanced, the mean over classes of the share that is right (default: "
        "balanced with elpv and caltech101, whose classes are uneven, else top1)",
    )
    where.add_argument(
        "--controls",
        nargs="+",
        choices=(*CONTROLS, "none"),
        help="what needs no policy, for comparison (default: downscale)",
    )
    where.add_argument("--protocol", nargs="+", choices=PROTOCOLS, help="(default: object canvas)")
    where.add_argument(
        "--native",
        dest="protocol",
        action="store_const",
        const=[NATIVE],
        help="`--protocol native`: every image in its own aspect ratio, within the tokens of the resolution",
    )
    where.add_argument("--limit", type=int, metavar="N", help="a seeded random choice of N images")
    where.add_argument(
        "--limit-from",
        "--fewer",  # its first name
        nargs="+",
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
    where.add_argument("--seed", type=int, help="of places, --limit and random weights (default: 0)")
    how = p.add_argument_group("how")
    how.add_argument("--batch-size", type=int, metavar="N", help="(default: %(default)s)")
    how.add_argument("--device", metavar="NAME", help="(default: cuda where there is a GPU, else cpu)")
    how.add_argument("--amp", action="store_true", help="half precision by autocast (bfloat16 where it exists)")
    how.add_argument("--num-workers", type=int, metavar="N", help="processes that prepare images (default: 0)")
    how.add_argument(
        "--diagnostics",
        type=int,
        metavar="N",
        help="images a row on which to measure entropy and reach of attention, 0 for none (default: %(default)s)",
    )
    how.add_argument(
        "--launcher",
        choices=LAUNCHERS,
        help="how several processes were started, which share the rows; `pytorch` is torchrun (default: none)",
    )
    how.add_argument("--fresh", action="store_true", help="measure again what is already stored")
    out = p.add_argument_group("results")
    out.add_argument("--out", type=Path, metavar="DIR", help="(default: %(default)s)")
    out.add_argument("--table", choices=("full", "compact"), help="(default: %(default)s)")
    trust_option(p)
    p.set_defaults(**{**vars(StudyOptions()), "model_kwargs": []})
    return p


def parse(argv: Sequence[str] | None = None, prog: str = "visionpe scaling") -> StudyOptions:
    """The command line as options.

    Raises:
        InputError: If an argument is unknown or has no such form.
    """
    args = vars(parser(prog).parse_args(argv))
    return StudyOptions(**{**args, "model_kwargs": key_values("--model-kwargs", args["model_kwargs"])})


def main(argv: Sequence[str] | None = None, prog: str = "visionpe scaling") -> int:
    """The program.

    Args:
        argv: Arguments, or None for those of the process.
        prog: What it is called.

    Returns:
        The exit code: 0, 2 for input that cannot be used, 130 when interrupted.
    """

    def work() -> None:
        options = parse(argv, prog)
        from visionpe.utils.console import wide_console

        if options.config:  # OpenMMLab is imported only where it is asked for
            from visionpe.detection.scaling.study import run as run_dense

            run_dense(options, wide_console())
        else:
            from visionpe.scaling.study import run

            run(options, wide_console())

    return exit_code(work, "finished rows are kept, the same command goes on from there")
