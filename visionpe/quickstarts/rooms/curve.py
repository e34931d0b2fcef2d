"""How a training went: minutes, and mIoU on the validation rooms."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Curve:
    """A training as its log tells it.

    Args:
        encoding: Of the model.
        minutes: Of training, without validation, at the end of each epoch.
        miou: On the validation rooms then, percent.
    """

    encoding: str
    minutes: tuple[float, ...]
    miou: tuple[float, ...]


def read_curve(encoding: str, directory: Path) -> Curve:
    """Read the logs of a training, several where it was resumed.

    Each line of training holds the seconds of an iteration, the mean since the line before.
    """
    steps: dict[int, float] = {}
    scores: dict[int, float] = {}
    ends: dict[int, int] = {}
    for file in sorted(directory.glob("*/vis_data/scalars.json")):
        for line in file.read_text().splitlines():
            scalars = json.loads(line)
            if "mIoU" in scalars:
                scores[int(scalars["step"])] = float(scalars["mIoU"])
            elif "loss" in scalars:
                steps[int(scalars["step"])] = float(scalars["time"])
                ends[int(scalars["epoch"])] = max(int(scalars["step"]), ends.get(int(scalars["epoch"]), 0))
    seconds, before, total = {0: 0.0}, 0, 0.0
    for step in sorted(steps):
        total += steps[step] * (step - before)
        seconds[step], before = total, step
    epochs = [epoch for epoch in sorted(scores) if epoch in ends]
    return Curve(encoding, tuple(seconds[ends[e]] / 60 for e in epochs), tuple(scores[e] for e in epochs))
