"""Figures from papers, to stand beside what is measured on the same weights and the same images."""

from __future__ import annotations

from dataclasses import dataclass

from visionpe.scaling.options import DEFAULT
from visionpe.scaling.plan import Task

# Classes of the data on which they were measured: ImageNet-1k's validation images.
CLASSES = 1000


@dataclass(frozen=True)
class Published:
    """Top-1 accuracy of one model by resolution.

    Args:
        top1: Side of the square image, pixels -> percent.
        policy: What the paper did at other sizes, by our name.
        weights: Tag of the weights that are the paper's own.
    """

    top1: dict[int, float]
    policy: str
    weights: str = "naver_in1k"


_SIDES = (144, 192, 224, 256, 320, 384, 512)


def _by_side(*values: float) -> dict[int, float]:
    return dict(zip(_SIDES, values))


# "Rotary Position Embedding for Vision Transformer", arXiv 2403.13298: figure 3 (read off, +-0.1), table of ViT-S for
# 224 and 384. Trained for 400 epochs at 224, evaluated with a crop ratio of 1.
ROPE_VIT = {
    "ape_vit_s": Published(_by_side(73.6, 79.1, 80.4, 80.9, 80.6, 79.4, 75.4), "bicubic"),
    "rope_axial_vit_s": Published(_by_side(73.6, 79.2, 80.9, 81.7, 81.5, 80.0, 76.1), "extrapolate"),
    "rope_vit_s": Published(_by_side(74.2, 79.6, 80.9, 81.8, 82.2, 81.8, 79.1), "extrapolate"),
}
TRAINED = 224  # pixels, all of them
# "LookHere", arXiv 2405.13985, abstract: the one figure of its extrapolation that it states in words.
LOOKHERE = "LookHere, trained at 224, tested at 1024 (4.6x):\n21.7 points above 2D-RoPE (arXiv 2405.13985)"
SOURCE = "RoPE-ViT (arXiv 2403.13298): 224 and 384 from its table, the rest read off a figure, ±0.1; crop ratio 1"


def published(task: Task, classes: int) -> float | None:
    """What a paper states for a row.

    Args:
        task: The row.
        classes: Of the data.

    Returns:
        Top-1 in percent, for published weights as the paper used them: images of ImageNet's classes, the object
        protocol, a square size that it lists, its own policy or ours by default. Else None.
    """
    entry, (height, width) = task.entry, task.size
    stated = ROPE_VIT.get(entry.name.split(".")[0])
    if stated is None or not entry.pretrained or classes != CLASSES or task.protocol != "object" or height != width:
        return None
    tag = entry.name.partition(".")[2]
    if tag not in ("", stated.weights) or task.policy not in (DEFAULT, stated.policy):
        return None
    return stated.top1.get(height)


def published_notes(tasks: list[Task], classes: int) -> list[str]:
    """What to know of the published figures that stand beside these rows."""
    import timm

    seen = {task.entry.name: task for task in tasks if published(task, classes) is not None}
    if not seen:
        return []
    notes = [f"paper: {SOURCE} (--crop-pct 1 measures so)"]
    for name in seen:
        config = timm.get_pretrained_cfg(name)
        tag = config.tag if config else None
        own = ROPE_VIT[name.split(".")[0]].weights
        if tag != own:
            notes.append(f"paper: {name} loads {tag}, trained longer or otherwise than the paper's own model")
    return notes
