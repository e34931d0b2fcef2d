"""What a quickstart leaves: a table on the screen, as Markdown, CSV and JSON, and closing words."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from visionpe.quickstarts.dense.tasks import Task
from visionpe.utils.files import write_atomic

Row = dict[str, Any]  # encoding, scale, and a number for each column of the task


def markdown(task: Task, rows: Sequence[Row]) -> str:
    """One line an encoding and number, one column a scale; the best of each column in bold."""
    scales = list(dict.fromkeys(row["scale"] for row in rows))
    encodings = list(dict.fromkeys(row["encoding"] for row in rows))
    value = {(row["encoding"], row["scale"], name): row[name] for row in rows for name in task.columns}
    lines = ["| | encoding | " + " | ".join(f"{scale:g}x" for scale in scales) + " |"]
    lines.append("|---|---|" + "---:|" * len(scales))
    for name in task.columns:
        best = {scale: max(value[e, scale, name] for e in encodings) for scale in scales}
        for encoding in encodings:
            cells = [f"{value[encoding, scale, name]:.1f}" for scale in scales]
            if len(encodings) > 1:
                bold = [value[encoding, scale, name] == best[scale] for scale in scales]
                cells = [f"**{cell}**" if strong else cell for cell, strong in zip(cells, bold)]
            lines.append(f"| {name} | {encoding} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write(task: Task, rows: Sequence[Row], out: Path, provenance: dict[str, Any]) -> list[Path]:
    """Write the table as Markdown, CSV and JSON.

    Args:
        task: The task.
        rows: The numbers.
        out: The directory.
        provenance: Where they came from, for the JSON.

    Returns:
        The files.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, ["encoding", "scale", *task.columns], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: f"{v:.2f}" if isinstance(v, float) else v for name, v in row.items()} for row in rows)
    contents = {
        "results.md": markdown(task, rows),
        "results.csv": text.getvalue(),
        "results.json": json.dumps({"task": task.name, "rows": list(rows), **provenance}, indent=2) + "\n",
    }
    for name, content in contents.items():
        write_atomic(out / name, content)
    return [out / name for name in contents]


def show(task: Task, rows: Sequence[Row], console: Console) -> None:
    """Print the table."""
    table = Table(title=f"digit scenes, {task.name}, percent")
    for heading in ("encoding", "test scale", *task.columns):
        table.add_column(heading, justify="left" if heading == "encoding" else "right")
    for row in rows:
        table.add_row(row["encoding"], f"{row['scale']:g}x", *(f"{row[name]:.1f}" for name in task.columns))
    console.print(table)


def closing(task: Task, rows: Sequence[Row]) -> list[str]:
    """Sentences about the result, each of which says no more than the numbers do.

    Args:
        task: The task.
        rows: The numbers.
    """
    sentences = []
    for row in rows:
        if row["scale"] == 1:
            numbers = ", ".join(f"{name} {row[name]:.1f} (goal {goal:g})" for name, goal in task.goals.items())
            met = all(row[name] >= goal for name, goal in task.goals.items())
            sentences.append(f"{row['encoding']} at the trained size: {numbers}: {'reached' if met else 'missed'}.")
    others = [row for row in rows if row["scale"] != 1]
    name = next(iter(task.goals))
    if others:
        largest = max(row["scale"] for row in rows)
        at = sorted((row for row in rows if row["scale"] == largest), key=lambda row: -row[name])
        sentences.append(
            f"{name} at {largest:g} times the size: "
            + ", ".join(f"{row['encoding']} {row[name]:.1f}" for row in at)
            + "."
        )
    return sentences
