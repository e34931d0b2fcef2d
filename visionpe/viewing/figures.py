"""matplotlib figures: the looks that all plots share, and files that are written whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from visionpe.utils.files import write_atomic

# Okabe and Ito's colours, told apart with any colour vision; the yellow is left out, too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#777777")
STYLES = ("-", "--", "-.", (0, (3, 1, 1, 1, 1, 1)), (0, (6, 2)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P")


def new_figure(width: float, height: float, **options: Any) -> Any:
    """A figure that needs no display.

    Args:
        width, height: Inches.
        options: Further ones of ``matplotlib.figure.Figure``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", **options)
    FigureCanvasAgg(figure)
    return figure


def save_png(path: Path, figure: Any, dpi: float | str = 150) -> None:
    """Write a figure as a PNG.

    Args:
        path: The file.
        figure: Of :func:`new_figure`.
        dpi: Pixels an inch; ``figure`` for the figure's own.
    """
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    write_atomic(path, content.getvalue())
