"""The pictures of positional artefacts: curves by layer, and mean feature maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from visionpe.looking.pictures import spaced
from visionpe.looking.places import PIXELS, PlaceRow
from visionpe.scaling.sizes import Size
from visionpe.viewing.features import ColourBasis
from visionpe.viewing.figures import COLOURS, MARKERS, new_figure, save_png

CURVES = {
    "share": "share of the variance that goes with the place",
    "row": "error of a probe of the row (share of the side)",
    "column": "error of a probe of the column",
    "moved_row": "row, by the probe of the first size",
    "same_place": "nearest neighbour stands at the same place",
    "outlier_norm": "share of the norms in outliers",
}


def draw_curves(path: Path, rows: Sequence[PlaceRow]) -> None:
    """Write a PNG: one panel a measure, layers from left to right, a line a size and policy; dotted: the pixels."""
    figure = new_figure(13, 7)
    kinds = list(dict.fromkeys((row.height, row.width, row.policy) for row in rows))
    for panel, (key, title) in zip(figure.subplots(2, 3).flat, CURVES.items()):
        for i, kind in enumerate(kinds):
            mine = [row for row in rows if (row.height, row.width, row.policy) == kind]
            layers = [row for row in mine if row.layer != PIXELS]
            colour = COLOURS[i % len(COLOURS)]
            label = f"{kind[0]} x {kind[1]} {kind[2]}"
            y = [getattr(row, key) for row in layers]
            panel.plot(
                [int(row.layer) for row in layers], y, color=colour, marker=MARKERS[i % 6], markersize=4, label=label
            )
            if key != "outlier_norm":
                for row in mine:
                    if row.layer == PIXELS:
                        panel.axhline(getattr(row, key), color=colour, linestyle=":", linewidth=1)
        if "row" in key or key == "column":
            panel.axhline(0.25, color="0.6", linewidth=0.8)
        if key == "same_place":
            panel.axhline(rows[0].chance, color="0.6", linewidth=0.8)
        panel.set_title(title, fontsize=10)
        panel.set_ylim(bottom=min(0.0, panel.get_ylim()[0]))
        panel.grid(alpha=0.25, linewidth=0.6)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    figure.axes[0].legend(frameon=False, fontsize=8)
    for panel in figure.axes[3:]:
        panel.set_xlabel("layer (dotted: mean colours; grey: chance)")
    save_png(path, figure)


def draw_means(path: Path, means: Mapping[tuple[Size, str], Mapping[str, Tensor]]) -> None:
    """Write a PNG: mean feature maps over the pictures as colours, a row a size and policy, a column a layer.

    Each map in colours of its own, from the least to the most: an even picture is noise, whatever it looks like.
    """
    names = [name for name in next(iter(means.values())) if name != PIXELS]
    chosen = spaced(names)
    figure = new_figure(1.9 * len(chosen) + 0.6, 2.05 * len(means) + 0.3)
    panels = figure.subplots(len(means), len(chosen), squeeze=False)
    for row, ((size, policy), maps) in zip(panels, means.items()):
        for panel, name in zip(row, chosen):
            panel.set_xticks([])
            panel.set_yticks([])
            if min(maps[name].shape[1:]) > 1:
                panel.imshow(ColourBasis.fit(maps[name][None]).colours(maps[name][None])[0], interpolation="nearest")
            panel.set_title(f"layer {name}", fontsize=9)
        row[0].set_ylabel(f"{size[0]} x {size[1]}\n{policy}", fontsize=9)
    save_png(path, figure)
