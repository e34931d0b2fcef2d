"""The result of several folds from the counts that their tests wrote.

python -m visionpe.detection.clouds.folds work_dirs/s3dis/swin3d_s*/counts.json
"""

from __future__ import annotations

import argparse


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Add the counts, print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("counts", nargs="+", help="JSON files of test_evaluator.counts, one a fold")
    args = parser.parse_args(argv)
    from visionpe.detection.clouds.metric import fold_metrics

    try:
        metrics = fold_metrics(args.counts)
    except (OSError, ValueError) as error:
        parser.exit(2, f"folds: error: {error}\n")
    print(f"{len(args.counts)} folds: " + ", ".join(f"{name} {metrics[name]:.2f}" for name in ("mIoU", "mAcc", "OA")))
    return metrics


if __name__ == "__main__":
    main()
