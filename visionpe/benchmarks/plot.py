"""Ratio to no encoding: against the tokens, a line an encoding, or as bars where there is one size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visionpe.viewing.figures import COLOURS, MARKERS, new_figure, save_png

GAP = 0.026  # between labels, of the height of a panel


def _spread(places: Sequence[float], gap: float) -> list[float]:
    """Ascending places moved as little as it takes to lie ``gap`` apart."""
    groups: list[list[float]] = []  # sum of the wanted starts, count
    for number, place in enumerate(places):
        groups.append([place - number * gap, 1])
        while len(groups) > 1 and groups[-2][0] / groups[-2][1] > groups[-1][0] / groups[-1][1]:
            total, count = groups.pop()
            groups[-1][0] += total
            groups[-1][1] += count
    starts = [total / count for total, count in groups for _ in range(int(count))]
    return [start + number * gap for number, start in enumerate(starts)]


def _lines(panel: Any, rows: Sequence[dict[str, Any]], key: str) -> None:
    from matplotlib.ticker import NullLocator, ScalarFormatter

    rows = [row for row in rows if row["of"] != "none"]
    names = dict.fromkeys(row["of"] for row in rows)
    looks = {
        name: (COLOURS[i % len(COLOURS)], MARKERS[i // len(COLOURS) % len(MARKERS)]) for i, name in enumerate(names)
    }
    ends = []
    for name, of, peer in dict.fromkeys((row["name"], row["of"], row["peer"]) for row in rows):
        points = [(r["tokens"], r[key]) for r in rows if (r["name"], r["of"]) == (name, of)]
        points = sorted(point for point in points if point[1] is not None)
        if not points:
            continue
        colour, marker = looks[of]
        label = f"{name} ({of})" if peer else name
        panel.plot(*zip(*points), "--" if peer else "-", color=colour, marker=marker, ms=3.5, lw=1 if peer else 1.5)
        ends.append((*points[-1], label, colour))
    panel.set(xscale="log", yscale="log")
    panel.axhline(1, color="0.6", lw=0.8, zorder=0)
    tokens = sorted({row["tokens"] for row in rows})
    panel.set_xticks(tokens, [f"{n:,}" for n in tokens])
    panel.xaxis.set_minor_locator(NullLocator())
    for which in (panel.yaxis.set_major_formatter, panel.yaxis.set_minor_formatter):
        which(ScalarFormatter())
    panel.set_xlabel("tokens")
    panel.get_xlim(), panel.get_ylim()  # settles the limits
    to_axes = panel.transData + panel.transAxes.inverted()
    ends.sort(key=lambda end: end[1])
    heights = [to_axes.transform((x, y))[1] for x, y, _, _ in ends]
    leader = {"arrowstyle": "-", "lw": 0.5, "alpha": 0.6, "shrinkA": 1, "shrinkB": 3, "relpos": (0, 0.5)}
    for (x, y, label, colour), height in zip(ends, _spread(heights, GAP)):
        look = {"color": colour, "fontsize": 7.5, "va": "center", "arrowprops": {**leader, "color": colour}}
        panel.annotate(label, (x, y), (1.05, height), textcoords="axes fraction", **look)


def _bars(panel: Any, rows: Sequence[dict[str, Any]], key: str) -> None:
    known = sorted((row for row in rows if row[key] is not None), key=lambda row: -row[key])
    labels = [f"{row['name']} ({row['of']})" if row["peer"] else row["name"] for row in known]
    low, high = ([row.get(f"{key}_{end}", row[key]) for row in known] for end in ("low", "high"))
    values = [row[key] for row in known]
    errors = [[v - x for v, x in zip(values, low)], [x - v for v, x in zip(values, high)]]
    colours = ["0.75" if row["peer"] else COLOURS[0] for row in known]
    panel.barh(labels, values, xerr=errors, color=colours, height=0.7, error_kw={"lw": 0.8, "ecolor": "0.3"})
    panel.axvline(1, color="0.4", lw=0.8)
    panel.margins(y=0.01)
    panel.tick_params(axis="y", labelsize=7.5)


def plot(path: Path, rows: Sequence[dict[str, Any]], *, title: str) -> None:
    """Write the PNG, a panel for each level and pass.

    Args:
        path: The file.
        rows: From :func:`visionpe.benchmarks.timing.measure`, with ``level``, ``pass`` and ``tokens``.
        title: Above the panels.
    """

    groups = list(dict.fromkeys((row["level"], row["pass"]) for row in rows))
    most = max(sum((row["level"], row["pass"]) == group for row in rows) for group in groups)
    several = len({(row["level"], row["tokens"]) for row in rows}) > len({row["level"] for row in rows})
    height = 6.6 if several else max(3.0, 1.4 + 0.17 * most)
    figure = new_figure(7.2 * len(groups), height)
    for panel, group in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups):
        own = [row for row in rows if (row["level"], row["pass"]) == group]
        panel.set_title(
            ", ".join(group) if several else f"{', '.join(group)}, {own[0]['tokens']:,} tokens", fontsize=11
        )
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
        if several:
            _lines(panel, own, "ratio")
            panel.set_ylabel("time, times no encoding (dashed: other code)")
        else:
            _bars(panel, own, "ratio")
            panel.set_xlabel("time, times no encoding (grey: other code; whiskers: quartiles)")
        panel.grid(alpha=0.25, lw=0.6, axis="y" if several else "x")
    figure.suptitle(title, fontsize=11)
    save_png(path, figure, 140)
