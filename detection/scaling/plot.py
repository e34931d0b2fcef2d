"""Metrics of detection and segmentation against the test scale, as a PNG and as a page of curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visionpe.detection.scaling.report import headlines, value
from visionpe.detection.scaling.rows import Row
from visionpe.scaling.options import DOWNSCALE
from visionpe.scaling.page import Curve, Panel, write_page
from visionpe.scaling.plot import CONTROL_STYLES, assign_line_styles
from visionpe.scaling.sweep import OK
from visionpe.viewing.figures import COLOURS, MARKERS, STYLES, new_figure, save_png

MAIN = ("coco/bbox_mAP", "coco/segm_mAP", "mIoU")


def panels(rows: Sequence[Row]) -> list[Panel]:
    """A panel for each main metric and crop, with a curve for each model and policy.

    Args:
        rows: Of the sweep; those that failed are named in the notes.
    """
    good = [row for row in rows if row["status"] == OK]
    measured = headlines(good)
    notes = [f"Not measured: {r['label']}, {r['policy']}: {r['reason']}" for r in rows if r["status"] != OK]
    made = []
    for metric in [name for name in MAIN if name in measured] or list(measured)[:1]:
        for crop in dict.fromkeys(row["crop"] for row in good):
            lines: dict[tuple[str, str], list[Row]] = {}
            for row in good:
                if row["crop"] == crop and value(row, metric) is not None:
                    lines.setdefault((row["label"], row["policy"]), []).append(row)
            curves = []
            for (label, policy), points in lines.items():
                points.sort(key=lambda row: row["factor"])
                y: list[Any] = [value(row, metric) for row in points]
                curves.append(Curve(label, policy, [row["factor"] for row in points], y))
            heading = measured[metric][0]
            if curves:
                made.append(Panel(heading + (f", crop {crop}" if crop else ""), f"{heading}, %", curves, notes))
    return made


def _draw(axis: Any, curve: Curve, look: int) -> None:
    kind: dict[str, Any] = {"color": "0.4", "linestyle": CONTROL_STYLES[DOWNSCALE], "linewidth": 1.3}
    if curve.policy != DOWNSCALE:
        kind = {"color": COLOURS[look % len(COLOURS)], "linestyle": STYLES[look // len(COLOURS) % len(STYLES)]}
        kind |= {"linewidth": 1.6, "marker": MARKERS[look % len(MARKERS)], "markersize": 4.5}
    axis.plot(curve.x, curve.y, label=curve.policy, **kind)


def plot(path: Path, drawn: Sequence[Panel], title: str) -> None:
    """Draw the panels in a row for each model, and write them as a PNG.

    Args:
        path: The file.
        drawn: From :func:`panels`.
        title: Above them.
    """

    curves = [curve for panel in drawn for curve in panel.curves]
    labels = list(dict.fromkeys(curve.label for curve in curves))
    looks = assign_line_styles([{"label": curve.label, "policy": curve.policy} for curve in curves])
    factors = sorted({x for curve in curves for x in curve.x})
    wide, high = max(len(drawn), 1), max(len(labels), 1)
    figure = new_figure(4.6 * wide + 2, 3.4 * high + 0.6)
    axes = figure.subplots(high, wide, sharey="col", squeeze=False)
    for label, line in zip(labels, axes):
        for panel, axis in zip(drawn, line):
            for curve in panel.curves:
                if curve.label == label:
                    _draw(axis, curve, looks.get(curve.policy, 0))
            axis.set_title(f"{label}: {panel.title}", fontsize=11)
            axis.set_ylabel(panel.unit)
            axis.set_xscale("log")
            axis.set_xticks(factors, [f"{factor:g}x" for factor in factors], minor=False)
            axis.minorticks_off()
            axis.grid(alpha=0.25, linewidth=0.6)
            for side in ("top", "right"):
                axis.spines[side].set_visible(False)
            if factors[0] < 1 < factors[-1]:
                axis.axvline(1, color="0.6", linewidth=0.8, zorder=0)
        # Models have policies of their own, so each row has a legend.
        line[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=9)
    for axis in axes[0]:  # shared by those below it, which had to be drawn first
        axis.set_ylim(bottom=0)
    figure.supxlabel("test scale, times that of the config", fontsize=10)
    figure.suptitle(title, fontsize=12)
    save_png(path, figure, 130)


def page(path: Path, drawn: Sequence[Panel], rows: Sequence[Row], title: str, provenance: dict[str, Any]) -> None:
    """Write one html page with curves to turn on and off, a table and the settings.

    Args:
        path: The file.
        drawn: From :func:`panels`.
        rows: Of the sweep.
        title: Of the page.
        provenance: Where the numbers came from.
    """
    shown = headlines(rows)
    head = ("label", "policy", "crop", "factor", "status", "n")
    table = [
        {key: row.get(key) for key in head} | {shown[metric][0]: value(row, metric) for metric in shown} for row in rows
    ]
    write_page(path, title, drawn, table=table, details={"Settings and provenance": provenance})
