"""mIoU against minutes of training, a line an encoding."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from visionpe.quickstarts.rooms.curve import Curve
from visionpe.scaling.plot import COLOURS, MARKERS
from visionpe.utils.files import write_atomic


def plot(path: Path, curves: Sequence[Curve]) -> None:
    """Draw the curves and write them as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    for curve, colour, marker in zip(curves, COLOURS, MARKERS):
        panel.plot(curve.minutes, curve.miou, color=colour, marker=marker, label=curve.encoding)
        if curve.miou:
            text, at = f"{curve.miou[-1]:.1f}", (curve.minutes[-1], curve.miou[-1])
            panel.annotate(text, at, (6, 0), textcoords="offset points", va="center", color=colour)
    panel.set(xlabel="minutes of training, one core", ylabel="mIoU on rooms not trained on, percent", ylim=(0, 100))
    panel.set_title("A tiny Swin3D on labelled rooms, by position encoding", loc="left")
    panel.set_xlim(left=0)
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False, loc="lower right")
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=150)
    write_atomic(path, data.getvalue())
