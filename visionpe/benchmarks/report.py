"""What the benchmark leaves: tables on the screen and in Markdown, a CSV, a JSON with where it all came from."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from visionpe.utils.files import write_atomic

Row = dict[str, Any]
# Heading, key of the row, form.
TIMES = (
    ("ms", "ms", "{:.2f}"),
    ("times none", "ratio", "{:.3f}"),
    ("quartiles", "ratio_low", "{:.3f} to {ratio_high:.3f}"),
    ("times peer", "vs_peer", "{:.3f}"),
    ("max. difference", "difference", "{:.1e}"),
    ("peak MiB", "peak_mib", "{:.1f}"),
    ("times none", "peak_ratio", "{:.2f}"),
)
MEMORY = (
    ("peak MiB", "peak_mib", "{:,.0f}"),
    ("above none, MiB", "above_mib", "{:,.0f}"),
    ("seconds of that one call", "seconds", "{:.1f}"),
)


def ordered(rows: Sequence[Row]) -> list[Row]:
    """By ratio (or memory), ``none`` first, a peer after what it is compared with."""
    key = "ratio" if "ratio" in rows[0] else "peak_mib"

    def cost(row: Row) -> float:
        return float("inf") if row[key] is None else row[key]

    own = sorted((row for row in rows if not row["peer"]), key=lambda row: (row["of"] != "none", cost(row)))
    peers = [row for row in rows if row["peer"]]
    result = []
    for row in own:
        result.append(row)
        result += [peer for peer in peers if peer["of"] == row["of"]]
        peers = [peer for peer in peers if peer["of"] != row["of"]]
    return result


def _cells(row: Row) -> list[str]:
    name = f"  {row['name']}" if row["peer"] else row["name"]
    if row["status"] != "ok":
        return [f"{name}: {row['status']}", *[""] * len(TIMES if "ms" in row else MEMORY)]
    columns = TIMES if "ms" in row else MEMORY
    return [name, *("" if row[key] is None else form.format(row[key], **row) for _, key, form in columns)]


def _headings(rows: Sequence[Row]) -> list[str]:
    return ["encoding", *(heading for heading, _, _ in (TIMES if "ms" in rows[0] else MEMORY))]


def groups(rows: Sequence[Row], batch: int) -> dict[str, list[Row]]:
    """Rows that belong into one table, in their order, by its title."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        title = f"{row['level']}, {row['pass']}, {row['pixels']} pixels ({row['tokens']:,} tokens), batch {batch}"
        found.setdefault(title, []).append(row)
    return {title: ordered(own) for title, own in found.items()}


def table(rows: Sequence[Row], title: str) -> Table:
    """One level at one resolution, for the screen."""
    t = Table(title=title, title_justify="left")
    for number, heading in enumerate(_headings(rows)):
        t.add_column(heading, justify="right" if number else "left")
    for row in rows:
        t.add_row(*_cells(row))
    return t


def _markdown(rows: Sequence[Row]) -> str:
    headings = _headings(rows)
    lines = [headings, ["---", *["--:"] * (len(headings) - 1)]]
    for row in rows:
        name, *cells = _cells(row)
        lines.append([f"vs {name.strip()}" if row["peer"] else f"`{name}`", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(folder: Path, name: str, rows: Sequence[Row], *, settings: Row, about: Row, notes: Sequence[str]) -> None:
    """Write ``NAME.md``, ``NAME.csv`` and ``NAME.json`` into a folder.

    Args:
        folder: Made if missing.
        name: Of the files.
        rows: What was measured.
        settings: Of the command line.
        about: Device and versions.
        notes: Sentences that stand below the tables.
    """
    parts = [f"# {name.replace('_', ' ')}"]
    parts += [f"**{title}**\n\n{_markdown(own)}" for title, own in groups(rows, settings["batch_size"]).items()]
    where = ", ".join(f"{key} {value}" for key, value in about.items())
    parts.append(" ".join([*notes, f"{where}, threads {settings['threads']}."]))
    write_atomic(folder / f"{name}.md", "\n\n".join(parts) + "\n")
    write_atomic(folder / f"{name}.json", json.dumps({"settings": settings, **about, "rows": rows}, indent=1) + "\n")
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(folder / f"{name}.csv", text.getvalue())
