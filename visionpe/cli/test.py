"""Evaluate weights on the test split of a config of mmpretrain, mmdet or mmseg, over mmengine's Runner.

    visionpe test digits/rope_mixed_vit.py work_dirs/digits/rope_mixed_vit/model.safetensors
    visionpe test digits/mask_rcnn_rope_vit.py work_dirs/digits/mask_rcnn_rope_vit/iter_350.pth \\
        --show-dir drawn --out predictions.pkl

CHECKPOINT is a .pth of `visionpe train` or an exported model.safetensors. Weights that do not fit are refused.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from visionpe.cli.common import exit_code, make_parser, run_arguments


def parser(prog: str) -> argparse.ArgumentParser:
    """The command line."""
    p = make_parser(prog, __doc__)
    p.add_argument(
        "config", help="config file the weights were trained with (configs/digits/x.py), or the name of a shipped one"
    )
    p.add_argument("checkpoint", help="weights: epoch_N.pth, iter_N.pth or model.safetensors")
    p.add_argument(
        "--out", metavar="FILE", help="write the metrics into this JSON file, or the predictions if it is called .pkl"
    )
    p.add_argument("--show-dir", metavar="DIR", help="draw every picture, the ground truth beside the prediction")
    p.add_argument("--score-thr", type=float, default=0.3, metavar="P", help="least score drawn (default: %(default)s)")
    p.add_argument(
        "--tta",
        action="store_true",
        help="test-time augmentation: that of the config, or each picture and its mirror image",
    )
    run_arguments(p, "test_dataloader.batch_size=100 test_dataloader.dataset.split=val")
    return p


def run(argv: Sequence[str] | None = None, prog: str = "visionpe test") -> dict[str, float]:
    """Evaluate as the command line says; returns the metrics, or raises ``InputError``."""
    args = parser(prog).parse_args(argv)
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    from visionpe.detection.running.commands import test

    return test(
        args.config,
        args.checkpoint,
        work_dir=args.work_dir,
        out=args.out,
        show_dir=args.show_dir,
        score_thr=args.score_thr,
        tta=args.tta,
        launcher=args.launcher,
        seed=args.seed,
        cfg_options=args.cfg_options,
    )


def main(argv: Sequence[str] | None = None, prog: str = "visionpe test") -> int:
    """The program; returns the exit code: 0, 2 for input that cannot be used, 130 and 143 when ended."""
    return exit_code(lambda: run(argv, prog) and None, "nothing was written")
