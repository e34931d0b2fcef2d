"""Train a model from a config file of mmpretrain, mmdet or mmseg, over mmengine's Runner.

    visionpe train digits/rope_mixed_vit.py
    visionpe train digits/mask_rcnn_rope_vit.py --resume
    torchrun --nproc-per-node 8 -m visionpe train imagenet/deit3_400e/rope_mixed_vit_s.py --launcher pytorch --amp

CONFIG is a file, or the name of a config that is shipped with the package (`visionpe list configs`). The work directory
(work_dirs/<config> by default) receives the log and checkpoints; a classifier's also model.safetensors and model.json.
After a kill at any point the same command with --resume goes on.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from visionpe.cli.common import exit_code, make_parser, run_arguments


def parser(prog: str) -> argparse.ArgumentParser:
    """The command line."""
    p = make_parser(prog, __doc__)
    p.add_argument("config", help="config file, such as configs/digits/rope_mixed_vit.py, or the name of a shipped one")
    p.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="go on from CHECKPOINT, or without one from the newest in the work directory",
    )
    p.add_argument(
        "--amp",
        action="store_true",
        help="mixed precision: bfloat16, on old GPUs float16; in detectors the backbone only",
    )
    p.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate with the batch of all processes, from that of the recipe",
    )
    p.add_argument("--fsdp", action="store_true", help="shard the model over the GPUs, instead of a copy on each")
    run_arguments(p, "train_cfg.max_epochs=10 model.img_size=32 'a.b=[1,2]'")
    return p


def main(argv: Sequence[str] | None = None, prog: str = "visionpe train") -> int:
    """The program; returns the exit code: 0, 2 for input that cannot be used, 130 and 143 when ended."""
    args = parser(prog).parse_args(argv)
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    from visionpe.detection.running.commands import train

    def work() -> None:
        train(
            args.config,
            work_dir=args.work_dir,
            resume=args.resume,
            amp=args.amp,
            auto_scale_lr=args.auto_scale_lr,
            fsdp=args.fsdp,
            launcher=args.launcher,
            seed=args.seed,
            cfg_options=args.cfg_options,
        )

    return exit_code(work, "the checkpoints are kept; the same command with --resume goes on from the newest")
