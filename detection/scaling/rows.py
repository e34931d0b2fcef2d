"""One row of detection or segmentation against the test scale: a config, a policy, a scale, a crop."""

from __future__ import annotations

import copy
import hashlib
import time
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from visionpe import set_policy
from visionpe.detection.running import runner as setup
from visionpe.detection.running.quiet import printed_into
from visionpe.detection.scaling import transforms as scaling_transforms  # noqa: F401 - registers ResizeBack
from visionpe.detection.scaling.config import rescale, set_crop
from visionpe.scaling.options import DEFAULT, DOWNSCALE
from visionpe.scaling.sizes import Size
from visionpe.scaling.store import key_of
from visionpe.scaling.sweep import FAILED, OK, OUT_OF_MEMORY
from visionpe.utils.errors import InputError, first_line, plain_worker_errors
from visionpe.utils.memory import is_out_of_memory

Row = dict[str, Any]


@dataclass(frozen=True)
class ModelEntry:
    """A config with its weights.

    Args:
        label: What tables call it.
        config: The config with all overrides.
        checkpoint: Its weights.
        sha256: Of the weights.
        images: Pictures in its test data.
        policies: That it runs under.
        text: The config as it was read, which decides its rows.
    """

    label: str
    config: Config
    checkpoint: Path
    sha256: str
    images: int
    policies: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Task:
    """One row to fill; ``crop`` is in pixels, None keeps the config's own way of testing."""

    entry: ModelEntry
    policy: str
    factor: float
    crop: Size | None = None

    def key(self, limit: int | None, versions: dict[str, str]) -> str:
        """A hash of everything that decides the row."""
        entry = self.entry
        decides = (entry.text, entry.sha256, entry.images, self.policy, self.factor, self.crop, limit)
        return key_of({"dense": [*map(str, decides)], "versions": versions})

    @property
    def head(self) -> Row:
        """The part of the row that says what it is of."""
        crop = "x".join(map(str, self.crop)) if self.crop else ""
        return {
            "label": self.entry.label,
            "config": str(self.entry.config.filename),
            "checkpoint": str(self.entry.checkpoint),
            "policy": self.policy,
            "factor": self.factor,
            "crop": crop,
        }


def sha256(file: Path) -> str:
    """The digest of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def make_runner(config: Config, checkpoint: Path, out: Path) -> Runner:
    """A Runner with weights, for testing.

    Raises:
        visionpe.utils.errors.InputError: If data are missing or the weights do not fit.
    """
    config = copy.deepcopy(config)
    config.work_dir = str(out / "logs")
    runner = setup.build_runner(config, stages=("test",))
    setup.load_strictly(runner.model, str(checkpoint))
    return runner


def probe(config: Config, checkpoint: Path, out: Path) -> tuple[int, Any]:
    """Try a config out: how many pictures its test data have, and its model with weights.

    Raises:
        InputError: If data are missing or the weights do not fit.
    """
    try:
        with printed_into(out / "logs" / "test.log"):
            runner = make_runner(config, checkpoint, out)
            loader = runner.build_dataloader(copy.deepcopy(config.test_dataloader))
    except InputError as error:
        raise InputError(f"--config {config.filename}: {error}") from None
    return len(loader.dataset), setup.unwrap_model(runner.model)


def _restrict(runner: Runner) -> None:
    """Let COCO's metrics count the pictures that were seen, not all in the annotation file."""
    dataset: Any = runner.test_loop.dataloader.dataset
    for metric in runner.test_loop.evaluator.metrics:
        if getattr(metric, "img_ids", ()) is None:
            metric.img_ids = [dataset.get_data_info(i)["img_id"] for i in range(len(dataset))]


def _metrics(runner: Runner) -> dict[str, float | None]:
    """Run the test; COCO writes -1, and IoU nan, where there was nothing to count."""
    with plain_worker_errors():
        found = {name: float(value) for name, value in runner.test().items()}
    if not found:
        raise ValueError("the test evaluator of the config gives no metrics")
    return {name: value if isfinite(value) and value != -1 else None for name, value in found.items()}


def failure(error: Exception) -> Row:
    """What a row says of an error."""
    return {"status": OUT_OF_MEMORY if is_out_of_memory(error) else FAILED, "reason": first_line(error)}


def measure(task: Task, out: Path, limit: int | None) -> Row:
    """Fill one row through the test loop of mmdet or mmseg; an error becomes its status.

    Args:
        task: What to measure.
        out: Results are below it, as is the log.
        limit: Pictures, the first of the data set; None for all.

    Returns:
        ``status reason``, and ``n seconds metrics`` of a row that went well. ``seconds`` holds loading the pictures and
        computing the metrics too.
    """
    entry, config = task.entry, copy.deepcopy(task.entry.config)
    try:
        rescale(config, task.factor, back=task.policy == DOWNSCALE)
        if task.crop is not None:
            set_crop(config, task.crop)
        n = min(limit or entry.images, entry.images)
        if n < entry.images:
            config.test_dataloader.dataset.indices = n
        with printed_into(out / "logs" / "test.log"):
            runner = make_runner(config, entry.checkpoint, out)
            if task.policy not in (DEFAULT, DOWNSCALE):
                set_policy(setup.unwrap_model(runner.model), task.policy)
            if n < entry.images:
                _restrict(runner)
            start = time.perf_counter()
            metrics = _metrics(runner)
        return {
            "status": OK,
            "reason": "",
            "n": n,
            "seconds": round(time.perf_counter() - start, 3),
            "metrics": metrics,
        }
    except Exception as error:
        row = failure(error)
    # Outside the handler, whose traceback would keep the tensors alive.
    if row["status"] == OUT_OF_MEMORY and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return row
