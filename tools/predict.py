"""Draw what a trained model sees in pictures: boxes and masks, a segmentation, or the class.

    python tools/predict.py street.jpg --config configs/digits/mask_rcnn_rope_vit.py \\
        --checkpoint work_dirs/digits/mask_rcnn_rope_vit/iter_350.pth --out predictions

Works with configs of mmdet, mmseg and mmpretrain, and with pictures of any size. Each picture is written as
DIR/<name>.png.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def parser() -> argparse.ArgumentParser:
    """The command line."""
    from mmengine.config import DictAction

    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("images", nargs="+", metavar="IMAGE", help="pictures, of any size")
    p.add_argument("--config", required=True, help="config file the weights were trained with")
    p.add_argument("--checkpoint", required=True, help="weights: .pth or .safetensors")
    p.add_argument(
        "--out", type=Path, default=Path("predictions"), metavar="DIR", help="where they go (default: %(default)s)"
    )
    p.add_argument("--score-thr", type=float, default=0.3, metavar="P", help="least score drawn (default: %(default)s)")
    p.add_argument("--device", metavar="NAME", help="such as cpu or cuda:0 (default: the best there is)")
    p.add_argument(
        "--cfg-options", nargs="+", action=DictAction, default={}, metavar="KEY=VALUE", help="override config entries"
    )
    return p


def words(sample: Any, classes: Sequence[str] | None, score: float) -> str:
    """What a data sample says, on one line."""

    def name(label: int) -> str:
        return str(classes[label]) if classes else f"class {label}"

    if "pred_instances" in sample:
        found = sample.pred_instances
        kept = found[found.scores >= score]
        return ", ".join(f"{name(int(i))} {float(p):.2f}" for i, p in zip(kept.labels, kept.scores)) or "nothing"
    if "pred_sem_seg" in sample:
        counts = Counter(sample.pred_sem_seg.data.flatten().tolist())
        total = sum(counts.values())
        return ", ".join(f"{name(label)} {100 * n / total:.1f}%" for label, n in counts.most_common(6))
    top = sample.pred_score.topk(min(5, len(sample.pred_score)))
    return ", ".join(f"{name(int(i))} {float(p):.2f}" for p, i in zip(top.values, top.indices))


def run(args: argparse.Namespace) -> list[Path]:
    """Predict and draw.

    Args:
        args: From :func:`parser`.

    Returns:
        The files written.

    Raises:
        visionpe.detection.runner.UsageError: If an argument cannot be used.
    """
    # After parsing: these imports take seconds, --help should not.
    from visionpe.detection import runner as setup
    from visionpe.detection.drawing import Painter, write_image
    from visionpe.detection.predictor import Predictor, read_image

    if not 0 <= args.score_thr <= 1:
        raise setup.UsageError(f"--score-thr {args.score_thr}: must be 0 to 1")
    files = [args.out / f"{Path(image).stem}.png" for image in args.images]
    if len(set(files)) < len(files):
        raise setup.UsageError("two images have the same name, so their drawings would be one file; predict them apart")
    pictures = [read_image(image) for image in args.images]
    config = setup.load_config(args.config, args.cfg_options)
    predictor = Predictor(config, setup.existing(args.checkpoint), args.device)
    painter = Painter(predictor.scope, predictor.meta, args.score_thr)
    for picture, file in zip(pictures, files):
        sample = predictor(picture)
        write_image(file, painter(picture, sample))
        print(f"{file}: {words(sample, predictor.meta.get('classes'), args.score_thr)}")
    return files


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """The program; returns the files written."""
    args = parser().parse_args(argv)
    from visionpe.detection.runner import UsageError

    try:
        return run(args)
    except UsageError as error:
        sys.exit(f"predict.py: error: {error}")


if __name__ == "__main__":
    main()
