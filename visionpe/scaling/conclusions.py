"""The result in three lines of plain words, each of which says no more than the numbers do."""

from __future__ import annotations

from collections.abc import Sequence

from visionpe.scaling.metric import interval, score
from visionpe.scaling.options import CONTROLS, DEFAULT
from visionpe.scaling.summary import Row
from visionpe.scaling.sweep import OK


def _name(line: Row) -> str:
    return line["label"] if line["policy"] == DEFAULT else f"{line['label']} ({line['policy']})"


def _percent(line: Row) -> str:
    return f"{score(line):.1f}%"


def _at_trained(lines: Sequence[Row]) -> str:
    native = [x for x in lines if x["protocol"] == "object" and abs(x["factor"] - 1) < 1e-6]
    ranked = list({line["label"]: line for line in sorted(native, key=score)}.values())[::-1]
    if not ranked:
        return "At the trained size: not measured."
    best = ranked[0]
    tied = [line for line in ranked if interval(line)[1] >= interval(best)[0]]
    rest = [line for line in ranked if line not in tied]
    text = f"At the trained size ({best['height']}x{best['width']}): "
    if len(tied) > 1:
        text += f"{', '.join(x['label'] for x in tied)} reach {_percent(tied[-1])} to {_percent(best)}"
        text += ", with overlapping 95% intervals"
    else:
        text += f"{best['label']} reaches {_percent(best)}"
    if rest:
        text += "; below them " + ", ".join(f"{x['label']} {_percent(x)}" for x in rest)
    return text + "."


def _at_largest(lines: Sequence[Row]) -> str:
    grown = [line for line in lines if line["protocol"] == "object" and line["factor"] > 1]
    if not grown:
        return "Larger objects: not measured."
    factor = max(line["factor"] for line in grown)
    ranked = sorted((x for x in grown if x["factor"] == factor), key=score, reverse=True)
    return f"Objects {factor:g} times as large: " + ", ".join(f"{_name(x)} {_percent(x)}" for x in ranked) + "."


def _against_downscale(lines: Sequence[Row]) -> str:
    parts = []
    for protocol in dict.fromkeys(line["protocol"] for line in lines):
        compared = [
            line
            for line in lines
            if line["protocol"] == protocol and line["factor"] > 1 and line.get("versus_downscale") is not None
        ]
        if compared:
            loses = sum(line["loses"] for line in compared)
            beats = sum(line["versus_low"] > 0 for line in compared)
            even = len(compared) - loses - beats
            parts.append(f"{protocol} protocol {beats} better, {loses} worse, {even} not distinguishable")
    if not parts:
        return "Against resizing to the trained size: not measured."
    return f"Above the trained size, against simply resizing the input back to it: {'; '.join(parts)}."


def conclusions(lines: Sequence[Row]) -> list[str]:
    """Three sentences about a sweep.

    Args:
        lines: From :func:`visionpe.scaling.summary.summarise`.

    Returns:
        What holds at the trained size, at the largest object scale, and against the ``downscale`` baseline.
    """
    measured = [line for line in lines if line["status"] == OK and line["policy"] not in CONTROLS]
    return [_at_trained(measured), _at_largest(measured), _against_downscale(measured)]
