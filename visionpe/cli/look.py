"""Look at what a model makes of a picture: attention, features as colours, positional artefacts.

    visionpe look street.jpg --model vit_small_patch14_dinov2.lvd142m --pretrained --size 1x 2x
    visionpe look street.jpg --model dinov2_vit_s --checkpoint vit_s_focus.safetensors --trained-size 224 \\
        --size 224 448 --policy default temperature
    visionpe look --model rope_vit_s --checkpoint rope.safetensors --images my_photographs

Of a picture it writes features.png (features as colours, the same directions at every size), attention.png (what
--token attends to, and the rollout over layers), reach.png (how far heads reach), look.json and look.html, a page
with all layers and heads, in which a patch can be clicked. Of a folder, --images, it writes places.png, means.png
and places.json: what features tell of the place they stand at, whatever is seen there.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from visionpe.cli.common import exit_code, key_values, make_parser, trust_option
from visionpe.looking.options import LookOptions


def parser(prog: str = "visionpe look") -> ArgumentParser:
    """The command line; its defaults are those of :class:`~visionpe.looking.options.LookOptions`."""
    p = make_parser(prog, __doc__)
    p.add_argument("picture", nargs="?", type=Path, metavar="IMAGE", help="a picture")
    what = p.add_argument_group("on what")
    what.add_argument(
        "--images", type=Path, metavar="FOLDER", help="pictures on which positional artefacts are measured"
    )
    what.add_argument("--limit", type=int, metavar="N", help="only N of them, a seeded choice (default: %(default)s)")
    what.add_argument("--model", metavar="NAME", help="any timm model, ours or not")
    what.add_argument("--checkpoint", type=Path, metavar="FILE", help="its weights")
    what.add_argument("--pretrained", action="store_true", help="its published weights")
    what.add_argument(
        "--model-kwargs", nargs="+", default=[], metavar="KEY=VALUE", help="for timm.create_model, such as img_size=384"
    )
    what.add_argument(
        "--trained-size",
        metavar="SIZE",
        help="224 or HEIGHTxWIDTH, of which factors are, where that is not what the model is built for; policies of "
        "one of timm's, adapted, measure from what it is built for: --model-kwargs img_size=224",
    )
    how = p.add_argument_group("how")
    how.add_argument(
        "--size",
        nargs="+",
        metavar="SIZE",
        help="448, 512x384 (HEIGHTxWIDTH) or a factor of the trained size, 2x; colours are made for the first, and the "
        "others are compared with it (default: 1x 2x)",
    )
    how.add_argument("--policy", nargs="+", metavar="NAME", help="resolution policies (default: default, as built)")
    how.add_argument("--layers", nargs="+", type=int, metavar="N", help="numbers of blocks or stages (default: all)")
    how.add_argument(
        "--token", metavar="TOKEN", help="whose attention is drawn: cls, or ROW,COLUMN as shares (default: %(default)s)"
    )
    how.add_argument("--seed", type=int, help="of choices and random weights (default: %(default)s)")
    how.add_argument("--device", metavar="NAME", help="(default: cuda where there is a GPU, else cpu)")
    how.add_argument("--out", type=Path, metavar="DIR", help="(default: %(default)s)")
    trust_option(p)
    p.set_defaults(**{key: value for key, value in vars(LookOptions()).items() if key != "model_kwargs"})
    return p


def main(argv: Sequence[str] | None = None, prog: str = "visionpe look") -> int:
    """The program.

    Args:
        argv: Arguments, or None for those of the process.
        prog: What it is called.

    Returns:
        The exit code: 0, 2 for input that cannot be used, 130 when interrupted.
    """
    args = vars(parser(prog).parse_args(argv))
    args.pop("trust_checkpoints", None)

    def work() -> None:
        options = LookOptions(**args | {"model_kwargs": key_values("--model-kwargs", args["model_kwargs"])})
        from visionpe.looking.run import run
        from visionpe.utils.console import wide_console

        run(options, wide_console())

    return exit_code(work, "nothing was written but what is named above")
