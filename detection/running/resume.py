"""Going on after a kill at any point: whole checkpoints, the newest of them, and random numbers that go on too."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


def newest_checkpoint(directory: str | Path) -> str | None:
    """Find the checkpoint to go on from.

    mmengine trusts ``last_checkpoint``, which a kill can leave empty or behind; this looks at the files.

    Args:
        directory: Work directory of a run.

    Returns:
        Path of the newest whole ``iter_N.pth`` or ``epoch_N.pth``; None if there is none.
    """
    files = [path for pattern in ("iter_*.pth", "epoch_*.pth") for path in Path(directory).glob(pattern)]
    for path in sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True):
        # The directory of a zip file stands at its end: a truncated one has none.
        if zipfile.is_zipfile(path):
            return str(path)
        logging.getLogger("mmengine").warning("checkpoint %s is not whole: passed over", path)
    return None


@HOOKS.register_module()
class ResumableRandomnessHook(Hook):
    """Seed torch before every training iteration from the run's seed, the iteration and the process.

    mmengine's checkpoints hold no state of the random generators. With this hook dropout, stochastic depth and the
    sampling of proposals are the same whether or not the run was broken off before.
    """

    priority = "VERY_HIGH"

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed the generators of all devices."""
        # Distinct for (seed, iteration, rank), as long as there are fewer than 4096 processes.
        number = (int(runner.seed or 0) * 1_000_003 + runner.iter) * 4096 + get_rank()
        torch.manual_seed(number % 2**63)
