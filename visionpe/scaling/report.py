"""What the sweep leaves: tables on the screen, a CSV and a JSON with where everything came from."""

from __future__ import annotations

import csv
import io
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from visionpe.scaling.metric import interval, metric_of, name_of, score
from visionpe.scaling.models import ModelEntry
from visionpe.scaling.options import CONTROLS
from visionpe.scaling.store import VERSIONS
from visionpe.scaling.summary import EXTRA, Row
from visionpe.scaling.sweep import OK
from visionpe.utils.device import device_name
from visionpe.utils.files import write_atomic

LOSES = "▼"
SHOWN = {"agreement": "agree %", "entropy": "entropy", "distance": "reach", "paper": "paper"}
COLUMNS = (
    *("label", "model", "seed", "policy", "protocol", "height", "width", "factor", "status", "n", "top1", "top1_low"),
    *("top1_high", "top5", "top5_low", "top5_high", "balanced", "balanced_low", "balanced_high"),
    *("images_per_s", "peak_bytes", "tokens", "flops", "corrupt"),
    *("versus_downscale", "versus_low", "versus_high", "loses"),
    *(*EXTRA, "chosen", "warns", "reason"),
)
PACKED = ("correct", "predicted", "labels")  # what rows keep of every image; the store has it


EXPLAINED = (
    "agree: images of the same predicted class as at the trained size; entropy (nats) and reach (tokens) of attention, "
    "means over a few images, layers, heads and queries."
)


def provenance(arguments: dict[str, Any], device: torch.device, entries: Sequence[ModelEntry]) -> dict[str, Any]:
    """Where the numbers came from.

    Args:
        arguments: Of the command line.
        device: Where it ran.
        entries: The models.
    """
    return {
        "versions": {"python": platform.python_version(), **VERSIONS},
        "platform": platform.platform(),
        "device": str(device),
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "seed": arguments.get("seed"),
        "arguments": arguments,
        "models": [
            {
                "label": entry.label,
                "model": entry.name,
                "kwargs": entry.kwargs,
                "checkpoint": str(entry.checkpoint) if entry.checkpoint else None,
                "sha256": entry.sha256,
                "pretrained": entry.pretrained,
                "seed": entry.seed,
                "trained_on": entry.data,
                "trained_size": list(entry.info.trained),
                "patch": list(entry.info.patch) if entry.info.patch else None,
                "parameters": entry.info.parameters,
                "as_timm_built_it": entry.info.why_not_adapted or None,
            }
            for entry in entries
        ],
    }


def write_json(
    path: Path, rows: Sequence[Row], lines: Sequence[Row], source: dict[str, Any], choices: Sequence[Row] = ()
) -> None:
    """Write rows (one a run), summary lines (one a group of seeds), provenance and what ``auto`` chose."""
    bare = [{key: value for key, value in row.items() if key not in PACKED} for row in rows]
    content = {"provenance": source, "rows": bare, "summary": lines, "auto": list(choices)}
    write_atomic(path, json.dumps(content, indent=1, default=str, allow_nan=False) + "\n")


def write_csv(path: Path, rows: Sequence[Row], lines: Sequence[Row]) -> None:
    """Write one line a run; the comparison with the baseline is that of its group of seeds."""
    place = ("label", "policy", "protocol", "height", "width")
    versus = {tuple(line[key] for key in place): line for line in lines}
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        line = versus[tuple(row[key] for key in place)]
        extra = {key: line.get(key) for key in ("versus_downscale", "versus_low", "versus_high", "loses")}
        writer.writerow({**row, **extra, "corrupt": len(row.get("corrupt", []))})
    write_atomic(path, text.getvalue())


def _cost(value: float | None, unit: float, digits: int = 1) -> str:
    return "" if value is None else f"{value / unit:,.{digits}f}"


def _size(line: Row) -> str:
    return f"{line['height']}x{line['width']}"


def full_table(lines: Sequence[Row], protocol: str) -> Table:
    """Everything about every line of one protocol."""
    table = Table(title=f"{protocol} protocol", title_justify="left", header_style="bold")
    table.add_column("model", overflow="fold")
    table.add_column("policy", overflow="fold")
    lines = [line for line in lines if line["protocol"] == protocol]
    extra = {key: name for key, name in SHOWN.items() if any(line.get(key) is not None for line in lines)}
    named = ("size", "factor", f"{name_of(lines)} % [95%]", "− downscale", "top-5 %")
    for name in (*named, "images/s", "peak MB", "tokens", "MFLOPs", *extra.values()):
        table.add_column(name, justify="right", no_wrap=True)
    last = None
    for line in lines:
        if last not in (None, (line["label"], line["policy"])):
            table.add_section()
        last = (line["label"], line["policy"])
        head = [line["label"], line["policy"], _size(line), f"{line['factor']:.2f}x"]
        if line["status"] != OK:
            table.add_row(*head, Text(line["status"], "red"), style="dim")
            continue
        low, high = interval(line)
        versus = line.get("versus_downscale")
        mark = Text("" if versus is None else f"{versus:+.1f}" + (f" {LOSES}" if line["loses"] else "  "))
        mark.stylize("red" if line.get("loses") else "")
        table.add_row(
            *head,
            f"{score(line):.1f} [{low:.1f}, {high:.1f}]",
            mark,
            f"{line['top5']:.1f}",
            _cost(line["images_per_s"], 1, 0),
            _cost(line["peak_bytes"], 1e6),
            str(line["tokens"] or ""),
            _cost(line["flops"], 1e6),
            *(_cost(line.get(key), 1, 2 if key == "entropy" else 1) for key in extra),
            style="dim" if line["policy"] in CONTROLS else "",
        )
    return table


def compact_table(lines: Sequence[Row], protocol: str) -> Table:
    """The metric of one protocol, a line for each model and policy, a column for each factor of the trained size."""
    chosen = [line for line in lines if line["protocol"] == protocol]
    factors = sorted({round(line["factor"], 2) for line in chosen})
    table = Table(title=f"{name_of(chosen)} %, {protocol} protocol", title_justify="left", header_style="bold")
    table.add_column("model", overflow="fold")
    table.add_column("policy", overflow="fold")
    for factor in factors:
        table.add_column(f"{factor:g}x", justify="right", no_wrap=True)
    label = None
    for key in dict.fromkeys((line["label"], line["policy"]) for line in chosen):
        if label not in (None, key[0]):
            table.add_section()
        label = key[0]
        cells = {round(x["factor"], 2): x for x in chosen if (x["label"], x["policy"]) == key}
        texts = []
        for factor in factors:
            line = cells.get(factor)
            if line is None or line["status"] != OK:
                texts.append(Text(line["status"] if line else "", "red"))
                continue
            low, high = interval(line)
            loses = bool(line.get("loses"))
            text = f"{score(line):.1f} ±{(high - low) / 2:.1f}{LOSES if loses else ' '}"
            texts.append(Text(text, "red" if loses else ""))
        table.add_row(*key, *texts, style="dim" if key[1] in CONTROLS else "")
    return table


def bands(lines: Sequence[Row]) -> str:
    """How the intervals of these lines came about, in a sentence."""
    seeds = sorted({line["seeds"] for line in lines})
    n = sorted({line["n"] for line in lines if line["status"] == OK}) or [0]
    images = f"{n[0]:,}" if len(n) == 1 else f"{n[0]:,} to {n[-1]:,}"
    balanced = bool(lines) and metric_of(lines[0]) == "balanced"
    if seeds[-1:] == [1]:
        kind = f"intervals by bootstrap over {images}" if balanced else f"Wilson intervals over {images}"
        return f"95% {kind} images, one training seed"
    alone = "over images alone" if balanced else "Wilson's"
    text = f"mean over {seeds[-1]} training seeds, 95% intervals by paired bootstrap over seeds and {images} images"
    return text if len(seeds) == 1 else text + f" ({alone} where there is one seed)"


def show(console: Console, lines: Sequence[Row], *, compact: bool = False) -> None:
    """Print the tables and what their marks mean.

    Args:
        console: Where to.
        lines: From :func:`visionpe.scaling.summary.summarise`.
        compact: The metric only, one column a resolution.
    """
    for protocol in dict.fromkeys(line["protocol"] for line in lines):
        console.print((compact_table if compact else full_table)(lines, protocol))
    console.print(f"{bands(lines)}.", style="dim", highlight=False)
    console.print(
        f"{LOSES} loses to downscale, the image at that resolution resized to the trained size and run as built "
        "(95% interval of the paired difference below 0).",
        style="dim",
        highlight=False,
    )
    if not compact and any(line.get("agreement") is not None for line in lines):
        console.print(EXPLAINED, style="dim", highlight=False)
    for reason in dict.fromkeys(
        f"{line['label']} at {_size(line)}: {line['status']} ({line['reason']})"
        for line in lines
        if line["status"] != OK
    ):
        console.print(reason, style="red", highlight=False)
