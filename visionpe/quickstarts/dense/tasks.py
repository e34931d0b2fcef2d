"""The two tasks: their configs, data and numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from visionpe.utils.configs import config_root

Metrics = Mapping[str, float]


def _digits(metrics: Metrics) -> float:
    values = [value for name, value in metrics.items() if name.startswith("IoU/") and name != "IoU/background"]
    return sum(values) / len(values)


@dataclass(frozen=True)
class Task:
    """A task on digit scenes.

    Args:
        name: ``detection`` or ``segmentation``.
        prefix: Configs are ``configs/digits/<prefix>_<encoding>_vit.py``.
        encodings: Trained by default.
        layout: Folder of the scenes: ``coco`` or ``ade``.
        columns: Heading of each number and how to read it, in percent, from the metrics of an evaluation.
        goals: Headings whose numbers the closing words compare with a goal, in percent.
    """

    name: str
    prefix: str
    encodings: tuple[str, ...]
    layout: str
    columns: Mapping[str, Callable[[Metrics], float]]
    goals: Mapping[str, float]

    def config(self, encoding: str) -> Path:
        """The config of an encoding."""
        return config_root() / f"digits/{self.prefix}_{encoding}_vit.py"

    def known(self) -> list[str]:
        """Encodings that have a config."""
        names = (path.stem for path in (config_root() / "digits").glob(f"{self.prefix}_*_vit.py"))
        return sorted(name.removeprefix(f"{self.prefix}_").removesuffix("_vit") for name in names)

    def options(self, data: Path) -> dict[str, str]:
        """Overrides that make a config read the scenes in ``data``."""
        root = data.resolve() / self.layout
        options = {f"{stage}_dataloader.dataset.data_root": f"{root}/" for stage in ("train", "val", "test")}
        if self.layout == "coco":
            file = str(root / "annotations/instances_val2017.json")
            options |= {f"{stage}_evaluator.ann_file": file for stage in ("val", "test")}
        return options


def _coco(name: str) -> Callable[[Metrics], float]:
    return lambda metrics: 100 * metrics[f"coco/{name}"]


DETECTION = Task(
    name="detection",
    prefix="mask_rcnn",
    encodings=("rope",),
    layout="coco",
    columns={
        "box AP": _coco("bbox_mAP"),
        "box AP50": _coco("bbox_mAP_50"),
        "mask AP": _coco("segm_mAP"),
        "mask AP50": _coco("segm_mAP_50"),
    },
    goals={"box AP50": 75, "mask AP50": 70},
)
SEGMENTATION = Task(
    name="segmentation",
    prefix="fcn",
    encodings=("cpe",),
    layout="ade",
    columns={
        "mIoU": lambda metrics: metrics["mIoU"],
        "mIoU of digits": _digits,
        "pixel accuracy": lambda metrics: metrics["aAcc"],
    },
    goals={"mIoU": 60},
)
TASKS = {task.name: task for task in (DETECTION, SEGMENTATION)}
