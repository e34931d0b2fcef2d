"""Predictions of a test in a pickle, as OpenMMLab's tools write them, whole or not at all."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from mmengine.evaluator import DumpResults
from mmengine.registry import METRICS

from visionpe.utils.files import write_atomic

ENDINGS = (".pkl", ".pickle")
LARGE = ("seg_logits", "seg_logit")  # of mmseg: a number a class and pixel


def dump_metric(scope: str | None, file: Path) -> DumpResults:
    """What collects predictions as a metric, for ``runner.test_evaluator.metrics``.

    mmdet's masks are written as run lengths; mmseg's scores of every class and pixel are left out.

    Args:
        scope: Of the config.
        file: Ends in ``.pkl`` or ``.pickle``.
    """
    base: Any = METRICS.get("mmdet.DumpDetResults") if scope == "mmdet" else DumpResults

    class Dump(base):
        default_prefix = "predictions"  # it gives no numbers

        def process(self, data_batch: Any, data_samples: Any) -> None:
            kept = [{key: value for key, value in each.items() if key not in LARGE} for each in data_samples]
            super().process(data_batch, kept)

        def compute_metrics(self, results: list) -> dict:
            write_atomic(Path(self.out_file_path), pickle.dumps(results))
            return {}

    return Dump(out_file_path=str(file))
