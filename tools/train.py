"""Train a model from a config file of mmpretrain, mmdet or mmseg, over mmengine's Runner.

    python tools/train.py configs/digits/rope_mixed_vit.py
    python tools/train.py configs/digits/mask_rcnn_rope_vit.py --resume
    torchrun --nproc-per-node 8 tools/train.py configs/imagenet/deit3_400e/rope_mixed_vit_s.py --launcher pytorch --amp

The work directory (work_dirs/<config> by default) receives the log and checkpoints; a classifier's also
model.safetensors and model.json. After a kill at any point the same command with --resume goes on.
"""

from __future__ import annotations

import argparse
import os
import sys


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line ``argv`` (``sys.argv`` by default)."""
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file, such as configs/digits/rope_mixed_vit.py")
    parser.add_argument("--work-dir", metavar="DIR", help="where logs and weights go (default: work_dirs/<config>)")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="go on from CHECKPOINT, or without one from the newest in the work directory",
    )
    parser.add_argument(
        "--amp",
        action="store_true",
        help="mixed precision: bfloat16, on old GPUs float16; in detectors the backbone only",
    )
    parser.add_argument("--fsdp", action="store_true", help="shard the model over the GPUs, instead of a copy on each")
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="how several processes are started; 'pytorch' is torchrun, with gloo where there is no GPU",
    )
    parser.add_argument("--seed", type=int, help="random seed (default: the config's)")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        default={},
        metavar="KEY=VALUE",
        help="override config entries: train_cfg.max_epochs=10 model.img_size=32 'a.b=[1,2]'",
    )
    # torch.distributed.launch passes the rank as an argument, torchrun in the environment.
    parser.add_argument("--local-rank", "--local_rank", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args


def main(argv: list[str] | None = None) -> None:
    """Train as the command line says."""
    args = parse_args(argv)
    # After parsing: these imports take seconds, --help should not.
    from visionpe.detection import runner as setup

    try:
        config = setup.load_config(args.config, args.cfg_options)
        if args.work_dir is not None:
            config.work_dir = args.work_dir
        if args.resume is not None:
            setup.set_resume(config, args.resume)
        if args.amp:
            setup.set_amp(config)
        setup.set_seed(config, args.seed)
        setup.set_launcher(config, args.launcher)
        if args.fsdp:
            setup.set_fsdp(config)
        runner = setup.build_runner(config, stages=("train", "val"))
    except setup.UsageError as error:
        sys.exit(f"train.py: error: {error}")
    runner.train()


if __name__ == "__main__":
    main()
