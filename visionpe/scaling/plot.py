"""Accuracy against resolution, a panel a protocol."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import ceil, floor
from pathlib import Path
from typing import Any

from visionpe.scaling.factor_axis import draw_factor_axis
from visionpe.scaling.metric import interval, name_of, paper_of, score
from visionpe.scaling.options import CONTROLS, DOWNSCALE, TILING
from visionpe.scaling.report import bands
from visionpe.scaling.summary import Row
from visionpe.scaling.sweep import OK
from visionpe.viewing.figures import COLOURS, MARKERS, STYLES, new_figure, save_png

# Thin and without markers, unlike policies.
CONTROL_STYLES: dict[str, Any] = {DOWNSCALE: ":", TILING: (0, (5, 2, 1, 2))}
CONTROL_NAMES = {DOWNSCALE: "downscale to the trained size", TILING: "tiles of the trained size"}
TITLES = {
    "object": "object: the image is resized, objects grow",
    "canvas": "canvas: objects keep their size, the canvas grows",
    "native": "native: own aspect ratio within the tokens of that size",
}


def assign_line_styles(lines: Sequence[Row]) -> dict[str, int]:
    """Number the line styles: two policies share one only if no model has both, so that few styles suffice.

    Args:
        lines: From :func:`visionpe.scaling.summary.summarise`.

    Returns:
        For each policy, which line style it has.
    """
    has = defaultdict(set)
    for line in lines:
        if line["policy"] not in CONTROLS:
            has[line["policy"]].add(line["label"])
    looks: dict[str, int] = {}
    for policy, models in has.items():
        taken = {looks[other] for other in looks if models & has[other]}
        looks[policy] = next(i for i in range(len(has)) if i not in taken)
    return looks


def shown_range(lines: Sequence[Row]) -> tuple[float, float]:
    """Of the vertical axis, percent: all that was measured, in whole tens; from 0 where that is most of it."""
    bounds = [bound for line in lines if line["status"] == OK for bound in interval(line)] or [0, 100]
    low, high = 10 * floor(min(bounds) / 10), min(101, 10 * ceil(max(bounds) / 10) + 1)
    return (0, high) if low <= 30 else (low, high)


def plot(path: Path, lines: Sequence[Row], title: str) -> None:
    """Draw accuracy against the factor of the trained size and write it as a PNG.

    Args:
        path: The file.
        lines: From :func:`visionpe.scaling.summary.summarise`.
        title: Above the panels.
    """
    from matplotlib.lines import Line2D

    protocols = list(dict.fromkeys(line["protocol"] for line in lines))
    labels = list(dict.fromkeys(line["label"] for line in lines))
    policies = list(dict.fromkeys(line["policy"] for line in lines if line["policy"] not in CONTROLS))
    colour = {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(labels)}
    looks = assign_line_styles(lines)
    style = {policy: STYLES[look % len(STYLES)] for policy, look in looks.items()}
    marker = {policy: MARKERS[look % len(MARKERS)] for policy, look in looks.items()}

    figure = new_figure(5.6 * len(protocols) + 2.6, 5.2)
    panels = figure.subplots(1, len(protocols), sharey=True, squeeze=False)[0]
    entries: dict[str, Line2D] = {}
    cross = Line2D([], [], color="0.4", linestyle="", marker="x")
    for panel, protocol in zip(panels, protocols):
        for label in labels:
            for policy in [*CONTROLS, *policies]:
                points = [
                    x
                    for x in lines
                    if (x["label"], x["policy"], x["protocol"], x["status"]) == (label, policy, protocol, OK)
                ]
                if not points:
                    continue
                points.sort(key=lambda x: x["factor"])
                factors, scores = [x["factor"] for x in points], [score(x) for x in points]
                if policy in CONTROLS:
                    panel.plot(factors, scores, color=colour[label], linestyle=CONTROL_STYLES[policy], linewidth=1)
                    continue
                (drawn,) = panel.plot(
                    factors,
                    scores,
                    color=colour[label],
                    linestyle=style[policy],
                    marker=marker[policy],
                    markersize=4.5,
                    linewidth=1.8,
                )
                low, high = zip(*map(interval, points))
                panel.fill_between(factors, low, high, color=colour[label], alpha=0.12, linewidth=0)
                entries.setdefault(label if policy == "default" else f"{label}, {policy}", drawn)
                paper = [(x["factor"], value) for x in points if (value := paper_of(x)) is not None]
                if paper:
                    panel.plot(*zip(*paper), color=colour[label], linestyle="", marker="x", markersize=6)
                    entries["stated in the paper\n(colour of the model)"] = cross
        panel.set_title(TITLES.get(protocol, protocol), fontsize=11)
        panel.set_xlabel("resolution, times the trained size")
        draw_factor_axis(panel, (line["factor"] for line in lines), fontsize=10)
    panels[0].set_ylabel(f"{name_of(lines)} accuracy, %")
    panels[0].set_ylim(*shown_range(lines))
    for control, text in CONTROL_NAMES.items():
        if any(line["policy"] == control for line in lines):
            look = Line2D([], [], color="0.4", linestyle=CONTROL_STYLES[control], linewidth=1)
            entries[f"{text}\n(colour of the model)"] = look
    figure.legend(entries.values(), entries.keys(), loc="outside right center", frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=12)
    figure.supxlabel(f"Bands: {bands(lines)}.", fontsize=8, color="0.35")
    save_png(path, figure, 150)
