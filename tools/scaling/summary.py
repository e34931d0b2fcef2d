"""Rows of several training seeds into one line each, with an interval and a comparison with the baseline."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from scaling.statistics import bootstrap, unpack
from scaling.sweep import DOWNSCALE, OK

MEANS = ("top1", "top5", "images_per_s", "peak_bytes")
Row = dict[str, Any]


def _line(rows: Sequence[Row]) -> Row:
    first = rows[0]
    line: Row = {
        key: first.get(key)
        for key in ("label", "policy", "protocol", "height", "width", "factor", "status", "reason", "tokens")
    }
    line["seeds"] = len({row["seed"] for row in rows})
    failed = [row for row in rows if row["status"] != OK]
    if failed:
        return line | {"status": failed[0]["status"], "reason": failed[0]["reason"]}
    line |= {"n": first["n"], "flops": first["flops"], "corrupt": len(first["corrupt"])}
    for key in MEANS:
        values = [row[key] for row in rows]
        line[key] = None if None in values else fmean(values)
    for top in ("top1", "top5"):
        line |= {f"{top}_{end}": first[f"{top}_{end}"] for end in ("low", "high")}
    if len(rows) > 1:
        line["top1_low"], line["top1_high"] = bootstrap([unpack(row["correct"]) for row in rows])
        for end, pick in (("low", min), ("high", max)):  # no outcomes are kept for top-5: the spread over seeds
            line[f"top5_{end}"] = pick(row["top5"] for row in rows)
    return line


def _versus(rows: Sequence[Row], baseline: Sequence[Row]) -> Row:
    """Points above the baseline on the same images, and whether the interval of the difference is below zero."""
    other = {row["seed"]: row for row in baseline}
    pairs = [(row, other[row["seed"]]) for row in rows if row["seed"] in other]
    if not pairs or any(row["status"] != OK for pair in pairs for row in pair):
        return {}
    differences = [unpack(a["correct"]).astype(int) - unpack(b["correct"]).astype(int) for a, b in pairs]
    low, high = bootstrap(differences)
    points = 100 * fmean(float(d.mean()) for d in differences)
    return {"versus_downscale": points, "versus_low": low, "versus_high": high, "loses": high < 0}


def summarise(rows: Sequence[Row]) -> list[Row]:
    """One line for each model, policy, protocol and resolution.

    Args:
        rows: From the sweep. Those that differ in the training seed only become one line.

    Returns:
        Lines with the mean over seeds. ``top1_low`` and ``top1_high`` are Wilson's 95% interval for one seed and a
        paired bootstrap over seeds and images for several; ``versus_downscale`` is the difference to the baseline in
        points, on the same images, with its bootstrap interval, and ``loses`` says that the interval is below zero.
    """
    groups: dict[tuple, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["label"], row["policy"], row["protocol"], row["height"], row["width"]].append(row)
    lines = []
    for (label, policy, *where), members in groups.items():
        line = _line(members)
        if policy != DOWNSCALE:
            line |= _versus(members, groups.get((label, DOWNSCALE, *where), []))
        lines.append(line)
    return lines
