"""``--policy auto`` of detection and segmentation: the policy for each test scale, chosen from unlabelled pictures."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from torch import Tensor

from visionpe import set_policy
from visionpe.detection.running import runner as setup
from visionpe.detection.running.quiet import printed_into
from visionpe.detection.scaling.cells import CELLS, cell_logits
from visionpe.detection.scaling.config import rescale, set_crop
from visionpe.detection.scaling.rows import Task, make_runner
from visionpe.policy.choose import first_round, half_a_patch, moved, second_round
from visionpe.policy.selection import PolicyChoice, Views, select_policy
from visionpe.scaling.images import subset
from visionpe.scaling.options import DEFAULT, DOWNSCALE
from visionpe.utils.memory import is_out_of_memory

# They change strides, on which heads rely.
UNFIT = ("patch_resize",)


class _Pictures:
    """The pictures that choose, prepared for a model at one test scale."""

    def __init__(self, task: Task, out: Path, count: int, seed: int, *, back: bool = False) -> None:
        config = copy.deepcopy(task.entry.config)
        rescale(config, task.factor, back=back)
        if task.crop is not None:
            set_crop(config, task.crop)
        runner = make_runner(config, task.entry.checkpoint, out)
        self.model: Any = setup.unwrap_model(runner.model).eval()
        # Not through the loader, which would share them among processes.
        dataset = runner.build_dataloader(copy.deepcopy(config.test_dataloader)).dataset
        self.classes = len(dataset.metainfo.get("classes") or ())
        self.items = [dataset[i] for i in subset(len(dataset), count, seed)]

    def views(self) -> Views:
        """Logits of all cells under the policy in force, of the pictures and of these moved by half a patch."""
        both: tuple[list[Tensor], list[Tensor]] = ([], [])
        step = half_a_patch(self.model)
        for item in self.items:
            for logits, is_moved in zip(both, (False, True)):
                data = self.model.data_preprocessor(pseudo_collate([copy.deepcopy(item)]), False)
                images = moved(data["inputs"], step) if is_moved else data["inputs"]
                (sample,) = self.model(images, data["data_samples"], mode="predict")
                logits.append(cell_logits(sample, self.classes))
        return torch.cat(both[0]), torch.cat(both[1])


def _try(names: Sequence[str], pictures: _Pictures, logits: dict[str, Views]) -> None:
    for name in names:
        set_policy(pictures.model, DEFAULT)
        try:
            set_policy(pictures.model, name)
            views = pictures.views()
        except Exception as error:
            if name == DEFAULT or is_out_of_memory(error):
                raise
            continue
        if all(view.isfinite().all() for view in views):
            logits[name] = views


@torch.inference_mode()
def choose(task: Task, out: Path, count: int, seed: int) -> PolicyChoice:
    """The policy for a row, or ``downscale``: the pictures resized back to the test scale of the config.

    Args:
        task: Its entry, scale and crop.
        out: Its logs are below it.
        count: How many pictures choose; their labels are not read.
        seed: Of which, and of the bootstrap.

    Returns:
        The choice by :func:`~visionpe.policy.selection.select_policy`, cells of 16 x 16 a picture in the place of
        images, drawn picture by picture.
    """
    if task.factor == 1:
        return PolicyChoice(DEFAULT, 0.0, 1.0, False)
    logits: dict[str, Views] = {}
    with printed_into(out / "logs" / "test.log"):
        pictures = _Pictures(task, out, count, seed)
        _try([name for name in first_round(pictures.model) if name not in UNFIT], pictures, logits)
        scores = select_policy(logits, group=CELLS**2, seed=seed).scores
        best = max(scores, key=scores.__getitem__)
        further = [name for name in second_round(pictures.model, best) if name.rpartition("+")[2] not in UNFIT]
        _try(further, pictures, logits)
        logits[DOWNSCALE] = _Pictures(task, out, count, seed, back=True).views()
    return select_policy(logits, group=CELLS**2, seed=seed)
