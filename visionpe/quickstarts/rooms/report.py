"""What the rooms leave: a table on the screen, as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from visionpe.quickstarts.rooms.curve import Curve
from visionpe.utils.files import write_atomic

Row = dict[str, Any]  # encoding, minutes, and the metrics in percent


def _cells(rows: Sequence[Row]) -> list[list[str]]:
    names = list(rows[0])
    return [names, *([f"{row[n]:.1f}" if isinstance(row[n], float) else row[n] for n in names] for row in rows)]


def write(rows: Sequence[Row], curves: Sequence[Curve], out: Path) -> list[Path]:
    """Write the table as Markdown, CSV and JSON; the JSON holds the curves too.

    Returns:
        The files.
    """
    head, *body = _cells(rows)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *body])
    contents = {
        "results.md": "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n",
        "results.csv": text.getvalue(),
        "results.json": json.dumps({"rows": list(rows), "curves": [asdict(c) for c in curves]}, indent=2) + "\n",
    }
    for name, content in contents.items():
        write_atomic(out / name, content)
    return [out / name for name in contents]


def show(rows: Sequence[Row], console: Console) -> None:
    """Print the table."""
    head, *body = _cells(rows)
    table = Table(title="rooms not trained on, percent")
    for heading in head:
        table.add_column(heading, justify="left" if heading == "encoding" else "right")
    for line in body:
        table.add_row(*line)
    console.print(table)
