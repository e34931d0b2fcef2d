"""The axis that all plots of accuracy share: factors of the trained size, logarithmic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def tick_texts(ticks: Sequence[float]) -> list[str]:
    """Labels of factors on a logarithmic axis, without those that would stand on the one before."""
    texts, last = [], 0.0
    for tick in ticks:
        clear = tick == 1 or tick >= 1.2 * last
        texts.append(f"{tick:g}x" if clear else "")
        last = tick if clear else last
    return texts


def draw_factor_axis(panel: Any, factors: Iterable[float], fontsize: float = 8) -> None:
    """Give a panel that axis, a grid, no frame, and a line at the trained size where factors lie on both sides.

    Args:
        panel: Axes of matplotlib.
        factors: What is drawn there, in any order.
        fontsize: Of the labels, points.
    """
    ticks = sorted({round(factor, 2) for factor in factors})
    panel.set_xscale("log")
    panel.set_xticks(ticks, tick_texts(ticks), minor=False, fontsize=fontsize)
    panel.minorticks_off()
    panel.grid(alpha=0.25, linewidth=0.6)
    if ticks[0] < 1 < ticks[-1]:
        panel.axvline(1, color="0.6", linewidth=0.8, zorder=0)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
