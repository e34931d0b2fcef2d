"""Draw what a trained model sees in pictures: boxes and masks, a segmentation, or the class.

    visionpe predict street.jpg --config digits/mask_rcnn_rope_vit.py \\
        --checkpoint work_dirs/digits/mask_rcnn_rope_vit/iter_350.pth --out predictions
    visionpe predict my_data/annotations.json --config my_config.py --checkpoint work_dirs/my_config/epoch_12.pth \\
        --page predictions.html

Works with configs of mmdet, mmseg and mmpretrain, and with pictures of any size: files, folders with all pictures below
them, and files of COCO annotations. Each picture is written as DIR/<name>.png; --page puts all of them on one page that
needs nothing else, to filter by class and name, beside the ground truth where there is one: that of the annotations, or
the folder of a picture if it is called as a class of the model.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from visionpe.cli.common import config_option, exit_code, make_parser, trust_option


def parser(prog: str) -> argparse.ArgumentParser:
    """The command line."""
    p = make_parser(prog, __doc__)
    p.add_argument(
        "images", nargs="+", metavar="IMAGE", help="pictures of any size, folders of them, or COCO annotations (.json)"
    )
    p.add_argument("--config", required=True, help="config file the weights were trained with, or a shipped one's name")
    p.add_argument("--checkpoint", required=True, help="weights: .pth or .safetensors")
    p.add_argument(
        "--out", type=Path, default=Path("predictions"), metavar="DIR", help="where they go (default: %(default)s)"
    )
    p.add_argument("--page", type=Path, metavar="FILE", help="write an HTML page with all of them too")
    p.add_argument(
        "--image-root",
        type=Path,
        metavar="DIR",
        help="where pictures of annotations are (default: looked for beside)",
    )
    p.add_argument("--limit", type=int, metavar="N", help="the first N pictures only (default: all)")
    p.add_argument("--score-thr", type=float, default=0.3, metavar="P", help="least score drawn (default: %(default)s)")
    p.add_argument("--device", metavar="NAME", help="such as cpu or cuda:0 (default: the best there is)")
    config_option(p, "model.test_cfg.rcnn.score_thr=0.1")
    trust_option(p)
    return p


def run(argv: Sequence[str] | None = None, prog: str = "visionpe predict") -> list[Path]:
    """Predict as the command line says; returns the files written, or raises ``InputError``."""
    args = parser(prog).parse_args(argv)
    from visionpe.detection.predicting.pictures import predict

    files = predict(
        args.images,
        args.config,
        args.checkpoint,
        args.out,
        score_thr=args.score_thr,
        device=args.device,
        cfg_options=args.cfg_options,
        page=args.page,
        image_root=args.image_root,
        limit=args.limit,
        on_image=lambda file, found: print(f"{file}: {found}"),
    )
    if args.page:
        print(f"{args.page}: the page")
    return files


def main(argv: Sequence[str] | None = None, prog: str = "visionpe predict") -> int:
    """The program; returns the exit code: 0, 2 for input that cannot be used, 130 and 143 when ended."""
    return exit_code(lambda: run(argv, prog) and None, "the pictures named above are written")
