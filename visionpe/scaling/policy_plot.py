"""Accuracy against resolution, a panel a model: what its policies, ``auto`` and ``downscale`` make of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from visionpe.scaling.factor_axis import draw_factor_axis
from visionpe.scaling.metric import interval, name_of, score
from visionpe.scaling.options import AUTO, DEFAULT, DOWNSCALE
from visionpe.scaling.plot import TITLES, shown_range
from visionpe.scaling.report import bands
from visionpe.scaling.summary import Row
from visionpe.scaling.sweep import OK
from visionpe.viewing.figures import COLOURS, MARKERS, new_figure, save_png

COLUMNS = 4


def draw_panels(path: Path, lines: Sequence[Row], protocol: str) -> None:
    """Write a PNG.

    Args:
        path: The file.
        lines: From :func:`visionpe.scaling.summary.summarise`.
        protocol: Which of them are shown.
    """
    from matplotlib.lines import Line2D

    shown = [x for x in lines if x["protocol"] == protocol and x["status"] == OK]
    labels = list(dict.fromkeys(x["label"] for x in shown))
    policies = [p for p in dict.fromkeys(x["policy"] for x in shown) if p not in (DEFAULT, AUTO, DOWNSCALE)]
    looks = [(colour, marker) for marker in MARKERS for colour in COLOURS[:6]]
    style = dict(zip(policies, looks))
    rows = -(-len(labels) // COLUMNS)
    width = min(len(labels), COLUMNS)
    figure = new_figure(3.5 * width + 2.2, 3.1 * rows + 0.9)
    panels = figure.subplots(rows, width, sharex=True, sharey=True, squeeze=False)
    entries: dict[str, Line2D] = {}
    for panel, label in zip(panels.flat, labels):
        own = [x for x in shown if x["label"] == label]
        for policy in [DOWNSCALE, *policies, DEFAULT, AUTO]:
            points = sorted((x for x in own if x["policy"] == policy), key=lambda x: x["factor"])
            if not points:
                continue
            factors, scores = [x["factor"] for x in points], [score(x) for x in points]
            if policy == DOWNSCALE:
                (line,) = panel.plot(factors, scores, color="0.35", linestyle=":", linewidth=1.6)
            elif policy in (DEFAULT, AUTO):
                colour = "black" if policy == AUTO else "0.55"
                (line,) = panel.plot(factors, scores, color=colour, linewidth=2.4, zorder=5)
                low, high = zip(*map(interval, points))
                panel.fill_between(factors, low, high, color=colour, alpha=0.12, linewidth=0)
            else:
                colour, marker = style[policy]
                (line,) = panel.plot(
                    factors, scores, color=colour, marker=marker, markersize=3.5, linewidth=1, alpha=0.9
                )
            entries.setdefault(policy, line)
        panel.set_title(label, fontsize=10)
        panel.set_ylim(*shown_range(shown))
        draw_factor_axis(panel, (x["factor"] for x in shown))
    for panel in list(panels.flat)[len(labels) :]:
        panel.set_axis_off()
    figure.supylabel(f"{name_of(shown)} accuracy, %", fontsize=10)
    figure.suptitle(TITLES.get(protocol, protocol), fontsize=12)
    order = [name for name in (DEFAULT, AUTO, DOWNSCALE, *policies) if name in entries]
    figure.legend([entries[name] for name in order], order, loc="outside right center", frameon=False, fontsize=9)
    figure.supxlabel(f"resolution, times the trained size. {bands(shown)}.", fontsize=8, color="0.35")
    save_png(path, figure, 130)
