"""What the saliency study leaves: a table for Markdown and the screen, CSV and JSON with where they came from."""

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

from visionpe.scaling.markdown import markdown
from visionpe.scaling.options import AUTO, DOWNSCALE
from visionpe.scaling.regret import describe_choices
from visionpe.scaling.report import LOSES
from visionpe.scaling.sweep import OK
from visionpe.utils.files import write_atomic

Row = dict[str, Any]
COLUMNS = (
    *("policy", "height", "width", "factor", "status", "n", "iou", "iou_low", "iou_high", "mae", "seconds"),
    *("versus_downscale", "versus_low", "versus_high", "loses", "chosen", "chosen_by", "warns", "reason"),
)


def intervals(lines: Sequence[Row]) -> str:
    """How the intervals came about, in a sentence."""
    counts = sorted({line["n"] for line in lines if line["status"] == OK}) or [0]
    images = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"95% bootstrap intervals over {images} pictures"


def _cell(line: Row) -> str:
    if line["status"] != OK:
        return str(line["status"])
    return f"{line['iou']:.1f} [{line['iou_low']:.1f}, {line['iou_high']:.1f}]"


def document(lines: Sequence[Row]) -> str:
    """IoU of every policy and size, then the intervals of the main ones, and what ``auto`` chose."""
    sizes = list(dict.fromkeys((line["height"], line["width"]) for line in lines))
    names = [name for name in ("default", DOWNSCALE, AUTO) if any(line["policy"] == name for line in lines)]
    text = [
        "| size | pictures | "
        + " | ".join(f"`{name}`" for name in names)
        + " | `default` − `downscale` | s a picture |"
    ]
    text.append("|---|--:|" + "---|" * len(names) + "--:|--:|")
    for size in sizes:
        own = {line["policy"]: line for line in lines if (line["height"], line["width"]) == size}
        first = own[names[0]]
        versus = (
            ""
            if "versus_low" not in first
            else (f"{first['versus_downscale']:+.1f} [{first['versus_low']:+.1f}, {first['versus_high']:+.1f}]")
        )
        cells = [_cell(own[name]) + (f", `{own[name]['chosen']}`" if "chosen" in own[name] else "") for name in names]
        head = [f"{size[0]}x{size[1]}", str(first.get("n", ""))]
        text.append("| " + " | ".join([*head, *cells, versus, f"{first.get('seconds', float('nan')):.2f}"]) + " |")
    notes = (
        f"IoU in percent, {intervals(lines)}. {LOSES} loses to `downscale` (interval of the paired difference below 0)."
    )
    return "\n".join([markdown(lines, "object", metric="iou"), *text, "", notes]) + "\n"


def write(out: Path, lines: Sequence[Row], choices: Sequence[Row], source: dict[str, Any]) -> list[Path]:
    """Write every number as CSV and JSON, and the tables as Markdown.

    Args:
        out: Directory of the results.
        lines: From :func:`visionpe.saliency.study.summarise`.
        choices: From :func:`visionpe.scaling.regret.regrets`.
        source: Where the numbers came from.

    Returns:
        The files.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    content = {"provenance": source, "rows": list(lines), "auto": list(choices)}
    files = {
        "results.csv": text.getvalue(),
        "results.json": json.dumps(content, indent=1, default=str) + "\n",
        "results.md": document(lines),
    }
    for name, written in files.items():
        write_atomic(out / name, written)
    return [out / name for name in files]


def show(lines: Sequence[Row], choices: Sequence[Row], console: Console) -> None:
    """Print the table, what ``auto`` was worth, and why rows are missing."""
    sizes = list(dict.fromkeys((line["height"], line["width"]) for line in lines))
    table = Table(title="IoU, %", title_justify="left", header_style="bold")
    table.add_column("policy", overflow="fold")
    for height, width in sizes:
        table.add_column(f"{height}x{width}", justify="right", no_wrap=True)
    for name in dict.fromkeys(line["policy"] for line in lines):
        cells = []
        for size in sizes:
            line = next(x for x in lines if (x["policy"], x["height"], x["width"]) == (name, *size))
            mark = LOSES if line.get("loses") else ""
            cells.append(Text(_cell(line) + mark, "red" if mark or line["status"] != OK else ""))
        table.add_row(name, *cells, style="dim" if name == DOWNSCALE else "")
    console.print(table)
    console.print(f"{intervals(lines)}; {LOSES} loses to downscale.", style="dim", highlight=False)
    for sentence in describe_choices(choices):
        console.print(sentence, highlight=False)
    for reason in dict.fromkeys(f"{x['policy']}: {x['status']} ({x['reason']})" for x in lines if x["status"] != OK):
        console.print(reason, style="red", highlight=False)
