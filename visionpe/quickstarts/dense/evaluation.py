"""Evaluate trained runs at several test scales, in this process, and draw some of what they see."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.registry import DATASETS

from visionpe.detection.predicting.drawing import Painter, caption, contact_sheet, write_image
from visionpe.detection.predicting.predictor import Predictor, read_image
from visionpe.detection.running import runner as setup
from visionpe.detection.running.kinds import kind_name
from visionpe.detection.running.quiet import printed_into
from visionpe.quickstarts.dense.tasks import Task
from visionpe.quickstarts.trainings import Training
from visionpe.utils.errors import InputError
from visionpe.utils.files import write_atomic


def set_scale(config: Any, scale: float) -> None:
    """Make the test pipeline of ``config`` resize pictures by ``scale``.

    Raises:
        InputError: If the pipeline has no ``Resize``.
    """
    steps = [step for step in config.test_dataloader.dataset.pipeline if kind_name(step) == "Resize"]
    if not steps:
        raise InputError(f"{config.filename}: the test pipeline has no Resize that could be set to {scale:g}x")
    for step in steps:
        step.clear()
        step.update(type="Resize", scale_factor=float(scale))


def measure(training: Training, options: Mapping[str, str], scale: float | None = None) -> dict[str, float]:
    """The metrics of a finished training, of pictures at one scale; kept in its directory.

    Args:
        training: A finished run.
        options: Overrides of the config.
        scale: Factor on the pictures' height and width; None leaves the data as it is.

    Returns:
        The metrics of the config.
    """
    store = training.directory / ("metrics.json" if scale is None else f"metrics_{scale:g}x.json")
    made_for = {"checkpoint": training.product.stat().st_mtime_ns, "options": dict(options)}
    with contextlib.suppress(OSError, ValueError, KeyError):
        kept = json.loads(store.read_text())
        if kept["made_for"] == made_for:
            return kept["metrics"]
    with printed_into(training.directory / "test.log"):
        config = setup.load_config(str(training.config), {**options, "work_dir": str(training.directory / "test")})
        if scale is not None:
            set_scale(config, scale)
        config.load_from, config.resume = None, False
        setup.drop_pretrained(config.model)
        runner = setup.build_runner(config, stages=("test",))
        setup.load_strictly(runner.model, str(training.product))
        metrics = {name: float(value) for name, value in runner.test().items()}
    write_atomic(store, json.dumps({"made_for": made_for, "metrics": metrics}, indent=2) + "\n")
    return metrics


def draw(task: Task, trainings: Sequence[Training], options: Mapping[str, str], out: Path, count: int = 12) -> None:
    """Write a contact sheet: ground truth beside the prediction of every run.

    Args:
        task: The task.
        trainings: Finished runs.
        options: Overrides of the config.
        out: The PNG.
        count: Scenes, from the first of the validation set.
    """
    with printed_into(out.parent / "drawing.log"):
        predictors = []
        for training in trainings:
            config = setup.load_config(str(training.config), dict(options))
            predictors.append(Predictor(config, str(training.product)))
        first = predictors[0]
        painter = Painter(first.scope, first.meta, score=0.5)
        dataset = DATASETS.build(config.test_dataloader.dataset)
        cells = []
        for index in range(min(count, len(dataset))):
            truth = dataset[index]["data_samples"]
            picture = read_image(truth.img_path)
            cells.append(caption(painter(picture, truth, truth=True), f"{index + 1}: ground truth"))
            for training, predictor in zip(trainings, predictors):
                cells.append(caption(painter(picture, predictor(picture)), training.name))
        # Scenes go on beside each other as long as the sheet stays readable.
        each = len(trainings) + 1
        width = each * max(6 // each, 1)
        write_image(out, contact_sheet([cells[i : i + width] for i in range(0, len(cells), width)]))
