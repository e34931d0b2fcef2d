"""What the benchmark of attention among voxels leaves: a table, how it grows, a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from visionpe.benchmarks.voxel_attention import OURS
from visionpe.benchmarks.voxel_timing import Row
from visionpe.utils.files import write_atomic
from visionpe.viewing.figures import COLOURS, MARKERS, new_figure, save_png

# Heading, key of the row, form.
COLUMNS = (
    ("forward, s", "forward", "{:.3f}"),
    ("times ours", "forward_ratio", "{:.2f}"),
    ("backward, s", "backward", "{:.3f}"),
    ("times ours", "backward_ratio", "{:.2f}"),
    ("peak MiB", "peak_mib", "{:,.0f}"),
    ("times ours", "peak_ratio", "{:.2f}"),
    ("max. difference", "difference", "{:.1e}"),
)
PANELS = (("forward", "forward, s"), ("backward", "backward, s"), ("peak_mib", "peak memory, MiB"))


def _headings() -> list[str]:
    return ["scene", "voxels", "pairs", "attention", *(heading for heading, *_ in COLUMNS)]


def _cells(row: Row) -> list[str]:
    name = row["form"] if row["status"] == "ok" else f"{row['form']}: {row['status']}"
    values = ["" if row[key] is None else form.format(row[key]) for _, key, form in COLUMNS]
    return [row["scene"], f"{row['voxels']:,}", f"{row['pairs']:,}", name, *values]


def growth(rows: Sequence[Row]) -> list[str]:
    """How seconds and memory of every formulation grow with the voxels of the rooms: the exponent of N."""
    lines = []
    for form in dict.fromkeys(row["form"] for row in rows):
        own = [row for row in rows if row["form"] == form and row["scene"] == "room"]
        found = []
        for key, heading in PANELS:
            known = [(row["voxels"], row[key]) for row in own if row[key]]
            if len({voxels for voxels, _ in known}) > 1:
                (n, low), (m, high) = min(known), max(known)
                found.append(f"{heading.split(',')[0]} N^{math.log(high / low) / math.log(m / n):.2f}")
        if found:
            lines.append(f"{form} grows as {', '.join(found)}")
    return lines


def least_ratios(rows: Sequence[Row]) -> list[str]:
    """The least that the others take, times ours, over all scenes."""
    lines = []
    for form in dict.fromkeys(row["form"] for row in rows if row["form"] != OURS):
        own = [row for row in rows if row["form"] == form]
        least = {
            what: min((row[key] for row in own if row[key] is not None), default=None)
            for what, key in (("forward", "forward_ratio"), ("backward", "backward_ratio"), ("memory", "peak_ratio"))
        }
        shown = ", ".join(f"{what} {value:.2f}" for what, value in least.items() if value is not None)
        lines.append(f"{form}, times ours at least: {shown or 'nothing was measured'}")
    return lines


def table(rows: Sequence[Row]) -> Table:
    """For the screen."""
    t = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    cells = [_cells(row) for row in rows]
    for number, heading in enumerate(_headings()):
        widest = max(len(line[number]) for line in cells)  # headings may wrap, numbers not
        t.add_column(heading, justify="left" if number in (0, 3) else "right", min_width=widest)
    for line in cells:
        t.add_row(*line)
    return t


def write(folder: Path, name: str, rows: Sequence[Row], *, settings: Row, about: Row, notes: Sequence[str]) -> None:
    """Write ``NAME.md``, ``NAME.json`` and ``NAME.png`` into a folder, made if missing."""
    headings = _headings()
    lines = [headings, ["---" if number in (0, 3) else "--:" for number in range(len(headings))]]
    lines += [_cells(row) for row in rows]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    facts = "\n".join(f"- {line}" for line in [*least_ratios(rows), *growth(rows)])
    where = ", ".join(f"{key} {value}" for key, value in about.items())
    parts = [f"# {name.replace('_', ' ')}", body, facts, " ".join([*notes, f"{where}, threads {settings['threads']}."])]
    write_atomic(folder / f"{name}.md", "\n\n".join(part for part in parts if part) + "\n")
    write_atomic(folder / f"{name}.json", json.dumps({"settings": settings, **about, "rows": rows}, indent=1) + "\n")
    save_png(folder / f"{name}.png", picture(rows), 140)


def picture(rows: Sequence[Row]) -> Any:
    """A figure: seconds and memory against the voxels; hollow marks are the real scan."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    figure = new_figure(12, 4.2)
    forms = list(dict.fromkeys(row["form"] for row in rows))
    panels: Any = figure.subplots(1, len(PANELS))
    for panel, (key, heading) in zip(panels, PANELS):
        for form, colour, marker in zip(forms, COLOURS, MARKERS):
            own = [(row["scene"], row["voxels"], row[key]) for row in rows if row["form"] == form and row[key]]
            rooms = sorted((voxels, value) for scene, voxels, value in own if scene == "room")
            scans = [(voxels, value) for scene, voxels, value in own if scene != "room"]
            if rooms:
                panel.plot(*zip(*rooms), "-", color=colour, marker=marker, ms=5, lw=1.5, label=form)
            if scans:
                panel.plot(*zip(*scans), marker, color=colour, mfc="white", ms=7, lw=0)
        panel.set(xscale="log", yscale="log", xlabel="voxels", title=heading)
        ticks = sorted({row["voxels"] for row in rows if row["scene"] == "room"})
        if ticks:
            panel.set_xticks(ticks, [f"{n:,}" for n in ticks])
        panel.xaxis.set_minor_locator(NullLocator())
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_minor_locator(NullLocator())
        panel.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        panel.grid(alpha=0.25, lw=0.6)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    if any(row[key] for row in rows for key, _ in PANELS):
        panels[0].legend(frameon=False)
    return figure
