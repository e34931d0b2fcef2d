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
from visionpe.scaling.options import AUTO, DEFAULT, DOWNSCALE
from visionpe.scaling.regret import describe_choices
from visionpe.scaling.report import LOSES
from visionpe.scaling.sweep import OK
from visionpe.utils.files import write_atomic

Row = dict[str, Any]
COLUMNS = (
    *("policy", "height", "width", "factor", "status", "n", "iou", "iou_low", "iou_high", "mae", "seconds"),
    *(
        "gain",
        "gain_low",
        "gain_high",
        "versus_downscale",
        "versus_low",
        "versus_high",
        "loses",
        "chosen",
        "chosen_by",
        "warns",
        "reason",
    ),
)


def intervals(lines: Sequence[Row]) -> str:
    """How the intervals came about, in a sentence."""
    counts = sorted({line["n"] for line in lines if line["status"] == OK}) or [0]
    images = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"95% bootstrap intervals over {images} pictures"


def _interval(line: Row, name: str, low: str, high: str, sign: str = "") -> str:
    """``1.0 [0.5, 1.5]``; nothing where it was not measured."""
    if line.get(low) is None:
        return ""
    return f"{line[name]:{sign}.1f} [{line[low]:{sign}.1f}, {line[high]:{sign}.1f}]"


def _cell(line: Row) -> str:
    return _interval(line, "iou", "iou_low", "iou_high") if line["status"] == OK else str(line["status"])


def _table(lines: Sequence[Row]) -> list[str]:
    """What the default policy does at each size, and what ``auto`` chose."""
    heads = ["size", "pictures", "IoU", "MAE", "− 224", "− `downscale`", "`auto`", "its IoU"]
    text = ["| " + " | ".join(heads) + " |", "|---|--:|---|--:|---|---|---|---|"]
    for size in dict.fromkeys((line["height"], line["width"]) for line in lines):
        own = {line["policy"]: line for line in lines if (line["height"], line["width"]) == size}
        first, auto = own[DEFAULT], own.get(AUTO, {"status": ""})
        cells = [
            f"{size[0]}x{size[1]}",
            str(first.get("n", "")),
            _cell(first),
            f"{first['mae']:.1f}" if "mae" in first else "",
            _interval(first, "gain", "gain_low", "gain_high", "+"),
            _interval(first, "versus_downscale", "versus_low", "versus_high", "+"),
            f"`{auto['chosen']}`" if "chosen" in auto else "",
            _cell(auto),
        ]
        text.append("| " + " | ".join(cells) + " |")
    return text


def document(lines: Sequence[Row]) -> str:
    """IoU of every policy and size, then the intervals of the default policy and of ``auto``."""
    notes = (
        f"Percent, {intervals(lines)}. {LOSES} loses to `downscale` (interval of the paired difference below 0). Below "
        "the default policy, less itself at 224 and less `downscale` on the same pictures too; then `auto`."
    )
    return "\n".join([markdown(lines, "object", metric="iou"), notes, "", *_table(lines)]) + "\n"


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
