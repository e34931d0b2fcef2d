"""Evaluate weights on the test split of a config of mmpretrain, mmdet or mmseg, over mmengine's Runner.

    python tools/test.py configs/digits/rope_mixed_vit.py work_dirs/digits/rope_mixed_vit/model.safetensors
    python tools/test.py configs/digits/mask_rcnn_rope_vit.py work_dirs/digits/mask_rcnn_rope_vit/iter_350.pth

CHECKPOINT is a .pth of tools/train.py or an exported model.safetensors. Weights that do not fit are refused.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line ``argv`` (``sys.argv`` by default)."""
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file the weights were trained with")
    parser.add_argument("checkpoint", help="weights: epoch_N.pth, iter_N.pth or model.safetensors")
    parser.add_argument("--work-dir", metavar="DIR", help="where the log goes (default: work_dirs/<config>)")
    parser.add_argument("--out", metavar="FILE", help="write the metrics into this JSON file")
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
        help="override config entries: test_dataloader.batch_size=100 test_dataloader.dataset.split=val",
    )
    # torch.distributed.launch passes the rank as an argument, torchrun in the environment.
    parser.add_argument("--local-rank", "--local_rank", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Evaluate as the command line says; return the metrics."""
    args = parse_args(argv)
    # After parsing: these imports take seconds, --help should not.
    from visionpe.detection import runner as setup

    try:
        config = setup.load_config(args.config, args.cfg_options)
        if args.work_dir is not None:
            config.work_dir = args.work_dir
        # The Runner would load what fits and go on with a warning.
        config.load_from, config.resume = None, False
        # All weights come from CHECKPOINT: those a fine-tuning started from need not be there.
        setup.forget_weights(config.model)
        checkpoint = setup.existing(args.checkpoint)
        setup.set_seed(config, args.seed)
        setup.set_launcher(config, args.launcher)
        runner = setup.build_runner(config, stages=("test",))
        setup.load_strictly(runner.model, checkpoint)
    except setup.UsageError as error:
        sys.exit(f"test.py: error: {error}")
    metrics = runner.test()
    if args.out and runner.rank == 0:
        out = Path(args.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = out.with_name(f".{out.name}.{os.getpid()}")
        # mmdet and mmseg give numpy's numbers.
        temporary.write_text(json.dumps(metrics, indent=2, default=float) + "\n")
        os.replace(temporary, out)
    return metrics


if __name__ == "__main__":
    main()
