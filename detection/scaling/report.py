"""What a sweep over test scales leaves: Markdown, CSV, JSON, a picture, and the table on the screen."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from visionpe.detection.scaling.rows import Row
from visionpe.scaling.options import AUTO, DOWNSCALE
from visionpe.scaling.sweep import OK
from visionpe.utils.files import write_atomic
from visionpe.utils.markdown import cell

# What tables and the picture show where a config measures it: heading, and what makes percent of it.
HEADLINES = {
    "coco/bbox_mAP": ("box AP", 100),
    "coco/bbox_mAP_50": ("box AP50", 100),
    "coco/segm_mAP": ("mask AP", 100),
    "coco/segm_mAP_50": ("mask AP50", 100),
    "mIoU": ("mIoU", 1),
    "aAcc": ("pixel accuracy", 1),
}
HEAD = ("label", "config", "checkpoint", "policy", "factor", "crop", "status", "n", "seconds", "chosen")


def headlines(rows: Sequence[Row]) -> dict[str, tuple[str, int]]:
    """Metrics to show, with heading and factor: the known ones that were measured, else the first three."""
    measured = list(dict.fromkeys(name for row in rows for name in row.get("metrics", {})))
    known = {name: HEADLINES[name] for name in HEADLINES if name in measured}
    return known or {name: (name, 1) for name in measured[:3]}


def value(row: Row | None, metric: str) -> float | None:
    """A number in the units of its heading, or None."""
    number = (row or {}).get("metrics", {}).get(metric)
    return None if number is None else number * HEADLINES.get(metric, ("", 1))[1]


def _lines(rows: Sequence[Row]) -> dict[tuple, dict[float, Row]]:
    """The rows of each config, crop and policy by factor."""
    lines: dict[tuple, dict[float, Row]] = {}
    for row in rows:
        lines.setdefault((row["label"], row["crop"], row["policy"]), {})[row["factor"]] = row
    return lines


def cells(rows: Sequence[Row], metric: str) -> tuple[list[float], list[tuple[tuple[str, ...], list[tuple[str, bool]]]]]:
    """A table of one metric.

    Args:
        rows: Of the sweep.
        metric: Its name.

    Returns:
        The factors, and for each line ``(label, crop, policy)`` with a cell for each factor: its text, and whether no
        other policy of the same config and crop has more, where there are several that differ. ``downscale`` takes no
        part in that.
    """
    factors = sorted({row["factor"] for row in rows})
    lines = _lines(rows)
    table = []
    for key, line in lines.items():
        rivals = [other for name, other in lines.items() if name[:2] == key[:2] and name[2] not in (DOWNSCALE, AUTO)]
        row_cells = []
        for factor in factors:
            row = line.get(factor)
            text = "" if row is None else row["status"]
            best = False
            if row is not None and row["status"] == OK:
                number = value(row, metric)
                text = "-" if number is None else f"{number:.1f}"
                others = {f"{v:.1f}" for o in rivals if (v := value(o.get(factor), metric)) is not None}
                best = len(others) > 1 and key[2] not in (DOWNSCALE, AUTO) and text == max(others, key=float)
            row_cells.append((text, best))
        table.append((key, row_cells))
    return factors, table


def _heads(rows: Sequence[Row]) -> tuple[str, ...]:
    return ("model", "crop", "policy") if any(row["crop"] for row in rows) else ("model", "policy")


def _head(key: tuple[str, ...], heads: tuple[str, ...]) -> list[str]:
    return [key[0], *([key[1] or "as in the config"] if "crop" in heads else []), key[2]]


def markdown(rows: Sequence[Row]) -> str:
    """One table a metric: a line for each model, crop and policy, a column for each scale; the best policy in bold."""
    heads = _heads(rows)
    parts = []
    for metric, (heading, _) in headlines(rows).items():
        factors, table = cells(rows, metric)
        text = [f"| {heading} | " + " | ".join([*heads[1:], *(f"{f:g}x" for f in factors)]) + " |"]
        text.append("|---" * len(heads) + "|" + "---:|" * len(factors))
        for key, line in table:
            shown = [f"**{text}**" if best else text for text, best in line]
            text.append("| " + " | ".join([*map(cell, _head(key, heads)), *shown]) + " |")
        parts.append("\n".join(text) + "\n")
    return "\n".join(parts)


def write(rows: Sequence[Row], out: Path, provenance: dict[str, Any]) -> list[Path]:
    """Write every number as CSV and JSON, and the tables as Markdown.

    Returns:
        The files.
    """
    metrics = list(dict.fromkeys(name for row in rows for name in row.get("metrics", {})))
    text = io.StringIO()
    writer = csv.DictWriter(text, [*HEAD, *metrics, "reason"], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, **row.get("metrics", {})} for row in rows)
    contents = {
        "results.csv": text.getvalue(),
        "results.json": json.dumps({"provenance": provenance, "rows": list(rows)}, indent=1, default=str) + "\n",
        "results.md": markdown(rows),
    }
    for name, content in contents.items():
        write_atomic(out / name, content)
    return [out / name for name in contents]


def show(rows: Sequence[Row], console: Console) -> None:
    """Print the tables, and why rows are missing."""
    heads = _heads(rows)
    for metric, (heading, _) in headlines(rows).items():
        factors, lines = cells(rows, metric)
        table = Table(title=f"{heading} by test scale", title_justify="left", header_style="bold")
        for head in heads:
            table.add_column(head, overflow="fold")
        for factor in factors:
            table.add_column(f"{factor:g}x", justify="right", no_wrap=True)
        last = None
        for key, line in lines:
            if last not in (None, key[:2]):
                table.add_section()
            last = key[:2]
            shown = [Text(cell, "bold" if best else "") for cell, best in line]
            table.add_row(*_head(key, heads), *shown, style="dim" if key[2] == DOWNSCALE else "")
        console.print(table)
    pictures = sorted({row["n"] for row in rows if row["status"] == OK})
    if pictures:
        console.print(
            f"Percent, {' to '.join(f'{n:,}' for n in pictures)} pictures; bold: the best policy of a model at a scale."
            " No intervals: differences of a few points on few pictures mean nothing.",
            style="dim",
            highlight=False,
        )
    for row in rows:
        if row["status"] != OK:
            what = f"{row['label']}, {row['policy']} at {row['factor']:g}x{row['crop'] and ', crop ' + row['crop']}"
            console.print(f"{what}: {row['status']} ({row['reason']})", style="red", highlight=False)
