"""What resolution gains or costs against the trained size, beside what papers publish of ImageNet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visionpe.scaling.factor_axis import draw_factor_axis
from visionpe.scaling.metric import interval, name_of, score
from visionpe.scaling.options import AUTO, DEFAULT, DOWNSCALE
from visionpe.scaling.published import LOOKHERE, ROPE_VIT, TRAINED
from visionpe.scaling.summary import Row
from visionpe.scaling.sweep import OK
from visionpe.viewing.figures import COLOURS, MARKERS, new_figure, save_png

Curve = list[tuple[float, float]]
LIMIT = -25.0  # points; what falls further is cut off
# Whose curve stands beside which: the encoding, by the ending of our models' names.
SAME = {"ape_vit": "ape_vit_s", "rope_axial_vit": "rope_axial_vit_s", "rope_vit": "rope_vit_s"}


def change(lines: Sequence[Row], label: str, policy: str) -> Curve:
    """Points gained or lost by factor of the trained size, for one model under one policy; empty without that size.

    Args:
        lines: Of one protocol, from :func:`visionpe.scaling.summary.summarise`.
        label: Of the model.
        policy: Of the rows.
    """
    own = {x["factor"]: score(x) for x in lines if (x["label"], x["policy"], x["status"]) == (label, policy, OK)}
    native = next((score(x) for x in lines if x["label"] == label and x["factor"] == 1 and x["status"] == OK), None)
    return [] if native is None else [(factor, own[factor] - native) for factor in sorted(own)]


def published_change(name: str) -> Curve:
    """The same of a model of the RoPE-ViT paper, whose trained size is 224 pixels."""
    top1 = ROPE_VIT[name].top1
    return [(side / TRAINED, value - top1[TRAINED]) for side, value in sorted(top1.items())]


def draw_change(path: Path, lines: Sequence[Row], protocol: str) -> None:
    """Write a PNG: the models as built, under ``auto``, and published curves of other, larger ones.

    Args:
        path: The file.
        lines: From :func:`visionpe.scaling.summary.summarise`.
        protocol: Which of them are shown.
    """
    shown = [x for x in lines if x["protocol"] == protocol and x["status"] == OK]
    labels = list(dict.fromkeys(x["label"] for x in shown))
    figure = new_figure(14, 4.8)
    panels = figure.subplots(1, 3, sharey=True)
    colour = {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(labels)}
    titles = ("measured here: default policy", "measured here: auto, which may take downscale", "published: ImageNet")
    for panel, title, policy in zip(panels, titles, (DEFAULT, AUTO, None)):
        for index, label in enumerate(labels):
            curve = change(shown, label, policy) if policy else _beside(label)
            if not curve:
                continue
            factors, points = zip(*curve)
            look = {"color": colour[label], "marker": MARKERS[index % len(MARKERS)], "markersize": 4}
            panel.plot(factors, points, label=label if policy else f"{SAME[_family(label)]}, 224 px", **look)
        if policy == DEFAULT:
            _draw_baseline(panel, shown, labels)
        panel.set_title(title, fontsize=10)
        panel.axhline(0, color="0.6", linewidth=0.8, zorder=0)
        draw_factor_axis(panel, [*(x["factor"] for x in shown), *(x for x, _ in published_change("ape_vit_s"))])
        panel.legend(frameon=False, fontsize=8, loc="best")
    low = min((points for panel in panels for line in panel.lines for points in line.get_ydata()), default=0)
    panels[0].set_ylim(bottom=max(LIMIT, low - 1))
    panels[2].text(0.98, 0.98, LOOKHERE, transform=panels[2].transAxes, ha="right", va="top", fontsize=8, color="0.3")
    panels[0].set_ylabel(f"{name_of(shown)} accuracy, points above that at the trained size", fontsize=9)
    band = "; band: the 95% interval at the trained size" if any(x["factor"] == 1 for x in shown) else ""
    figure.supxlabel(f"resolution, times the trained size{band}", fontsize=9)
    save_png(path, figure, 130)


def _draw_baseline(panel: Any, shown: Sequence[Row], labels: Sequence[str]) -> None:
    """What ``downscale`` makes of the same images, of all models, and how wide intervals are."""
    curves = [dict(change(shown, label, DOWNSCALE)) for label in labels]
    factors = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    if factors:
        means = [sum(curve[factor] for curve in curves) / len(curves) for factor in factors]
        panel.plot(factors, means, color="0.35", linestyle=":", label="downscale, mean of all")
    native = [interval(x) for x in shown if x["factor"] == 1 and x["policy"] == DEFAULT]
    if native:
        half = max(high - low for low, high in native) / 2
        panel.axhspan(-half, half, color="0.5", alpha=0.08, linewidth=0)


def _family(label: str) -> str:
    """``rope_vit_ti`` and ``ape_vit_s.tag`` without the size."""
    return label.split(".")[0].split(" ")[0].rpartition("_")[0]


def _beside(label: str) -> Curve:
    name = SAME.get(_family(label))
    return published_change(name) if name else []
