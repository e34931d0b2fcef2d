"""The pictures of ``visionpe look``: features as colours, what a token attends to, how far heads reach."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from visionpe.looking.views import View, place
from visionpe.viewing.attention import Token, attention_rollout
from visionpe.viewing.features import ColourBasis
from visionpe.viewing.figures import COLOURS, MARKERS, new_figure, save_png

T = TypeVar("T")
COLUMNS = 6  # layers in a figure, at most


def spaced(numbers: Sequence[T], most: int = COLUMNS) -> list[T]:
    """Some of them, evenly, the last one among them."""
    if len(numbers) <= most:
        return list(numbers)
    return [numbers[round(i)] for i in np.linspace(0, len(numbers) - 1, most)]


def _panels(rows: int, columns: int) -> tuple[Any, Any]:
    figure = new_figure(1.9 * columns + 0.6, 2.05 * rows + 0.3)
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    return figure, panels


def _name(panel: Any, view: View) -> None:
    panel.imshow(view.picture)
    panel.set_title(f"{view.size[0]} x {view.size[1]}\n{view.policy}", fontsize=9)


def draw_features(path: Path, views: Sequence[View], bases: Sequence[ColourBasis]) -> None:
    """Write a PNG: a row a view, a column a layer, each layer in the same colours in all rows.

    Args:
        path: The file.
        views: With the same layers.
        bases: One a layer.
    """
    chosen = spaced(range(len(bases)))
    figure, panels = _panels(len(views), 1 + len(chosen))
    for row, view in zip(panels, views):
        _name(row[0], view)
        for panel, index in zip(row[1:], chosen):
            panel.imshow(bases[index].colours(view.maps[index])[0], interpolation="nearest")
            panel.set_title(f"layer {view.layers[index]}", fontsize=9)
    save_png(path, figure)


def attended(view: View, token: str | tuple[float, float]) -> Token:
    """The token of a view that ``--token`` names."""
    return 0 if isinstance(token, str) else place(token, view.attention[view.whole[0]].grid.size)


def draw_attention(path: Path, views: Sequence[View], token: str | tuple[float, float]) -> bool:
    """Write a PNG: what a token attends to, mean over heads, a row a view and a column a layer, and the rollout.

    Returns:
        Whether any view has attention to the whole map; nothing is written where none has.
    """
    views = [view for view in views if view.whole]
    if not views:
        return False
    columns = max(len(spaced(view.whole)) for view in views)
    figure, panels = _panels(len(views), columns + 2)
    for row, view in zip(panels, views):
        at = attended(view, token)
        _name(row[0], view)
        if not isinstance(at, int):
            size = view.attention[view.whole[0]].grid.size
            y, x = ((i + 0.5) * pixels / n for i, pixels, n in zip(at, view.size, size))
            row[0].plot([x], [y], "+", color="#FF3030", markersize=11, markeredgewidth=2)
        for panel, index in zip(row[1:], spaced(view.whole)):
            layer = view.attention[index]
            here = attended(view, token) if isinstance(at, int) else place(token, layer.grid.size)  # type: ignore[arg-type]
            _heat(panel, layer.of(here)[0][0].mean(0).cpu().numpy())
            panel.set_title(f"layer {index}", fontsize=9)
        try:
            _heat(row[-1], attention_rollout(view.attention, [at])[0][0, 0].cpu().numpy())
            row[-1].set_title("rollout", fontsize=9)
        except ValueError:  # of maps of several sizes there is none
            continue
    save_png(path, figure)
    return True


def _heat(panel: Any, weights: np.ndarray) -> None:
    """Weights over patches; a few very large ones would leave the others black."""
    panel.imshow(
        weights, cmap="magma", vmin=0, vmax=max(float(np.quantile(weights, 0.995)), 1e-9), interpolation="nearest"
    )


def draw_reach(path: Path, views: Sequence[View], reach: Sequence[np.ndarray]) -> None:
    """Write a PNG: how far each head of each layer reaches, as a share of the side, a colour a view.

    Args:
        path: The file.
        views: Those of which attention was seen.
        reach: ``(layers, heads)`` of each, 0 to 1.
    """
    figure = new_figure(7.5, 4.2)
    panel = figure.subplots()
    for i, (view, shares) in enumerate(zip(views, reach)):
        x = np.arange(len(shares)) + (i - (len(views) - 1) / 2) * 0.6 / len(views)
        look = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        for head in range(shares.shape[1]):
            panel.plot(x, shares[:, head], linestyle="", markersize=3.5, alpha=0.65, **look)
        panel.plot(x, np.nanmean(shares, 1), linewidth=1.2, label=view.name, color=look["color"])
    panel.set_xlabel("layer")
    panel.set_ylabel("mean distance, share of the longer side")
    panel.set_ylim(bottom=0)
    panel.grid(alpha=0.25, linewidth=0.6)
    panel.legend(frameon=False, fontsize=9)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    save_png(path, figure)
