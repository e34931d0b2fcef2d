"""mIoU against minutes of training, a line an encoding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from visionpe.quickstarts.rooms.curve import Curve
from visionpe.viewing.figures import COLOURS, MARKERS, new_figure, save_png


def plot(path: Path, curves: Sequence[Curve], model: str = "Swin3D") -> None:
    """Draw the curves and write them as a PNG."""

    figure = new_figure(7.2, 4.4)
    panel = figure.subplots()
    for curve, colour, marker in zip(curves, COLOURS, MARKERS):
        panel.plot(curve.minutes, curve.miou, color=colour, marker=marker, label=curve.encoding)
        if curve.miou:
            text, at = f"{curve.miou[-1]:.1f}", (curve.minutes[-1], curve.miou[-1])
            panel.annotate(text, at, (6, 0), textcoords="offset points", va="center", color=colour)
    panel.set(xlabel="minutes of training, one core", ylabel="mIoU on rooms not trained on, percent", ylim=(0, 100))
    panel.set_title(f"A tiny {model} on labelled rooms, by position encoding", loc="left")
    panel.set_xlim(left=0)
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False, loc="lower right")
    save_png(path, figure, 150)
