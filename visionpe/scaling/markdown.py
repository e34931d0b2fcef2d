"""The compact tables as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from visionpe.scaling.metric import metric_of, name_of
from visionpe.scaling.options import AUTO, CONTROLS, DOWNSCALE
from visionpe.scaling.report import LOSES, bands
from visionpe.scaling.summary import Row
from visionpe.scaling.sweep import OK
from visionpe.utils.markdown import cell


def _cells(lines: Sequence[Row], factors: Sequence[float], best: dict[float, float], metric: str) -> list[str]:
    cells = []
    for factor in factors:
        line = next((x for x in lines if round(x["factor"], 2) == factor), None)
        if line is None or line["status"] != OK:
            cells.append(line["status"] if line else "")
            continue
        text = f"{line[metric]:.1f}"
        is_best = line["policy"] not in (*CONTROLS, AUTO) and line[metric] == best.get(factor)
        cells.append((f"**{text}**" if is_best else text) + (f" {LOSES}" if line.get("loses") else ""))
    return cells


def markdown(lines: Sequence[Row], protocol: str, *, metric: str | None = None) -> str:
    """A metric of one protocol: a line for each model and policy, a column for each factor of the trained size.

    Args:
        lines: From :func:`visionpe.scaling.summary.summarise`.
        protocol: Which of them.
        metric: Percent, the higher the better; None for that by which the lines are read.

    Returns:
        A table. The best policy of a model at each size is bold; those that lose to ``downscale`` are marked.
    """
    chosen = [line for line in lines if line["protocol"] == protocol]
    metric = metric or (metric_of(chosen[0]) if chosen else "top1")
    factors = sorted({round(line["factor"], 2) for line in chosen})
    text = ["| model | policy | " + " | ".join(f"{f:g}x" for f in factors) + " |", "|---|---|" + "--:|" * len(factors)]
    for label in dict.fromkeys(line["label"] for line in chosen):
        own = [line for line in chosen if line["label"] == label]
        policies = list(dict.fromkeys(line["policy"] for line in own))
        order = [DOWNSCALE, *(p for p in policies if p not in (DOWNSCALE, AUTO)), AUTO]
        best: dict[float, float] = {}
        for line in own:
            if line["status"] == OK and line["policy"] not in (*CONTROLS, AUTO):
                factor = round(line["factor"], 2)
                best[factor] = max(best.get(factor, 0), line[metric])
        for policy in (p for p in order if p in policies):
            cells = _cells([line for line in own if line["policy"] == policy], factors, best, metric)
            text.append(f"| `{cell(label)}` | {cell(policy)} | " + " | ".join(cells) + " |")
    return "\n".join(text) + "\n"


def document(lines: Sequence[Row], title: str, notes: Sequence[str] = ()) -> str:
    """All tables of a sweep under their headings, with sentences below."""
    parts = [f"# {title}\n"]
    for protocol in dict.fromkeys(line["protocol"] for line in lines):
        parts.append(f"## {protocol} protocol, {name_of(lines)} in percent\n\n{markdown(lines, protocol)}")
    bands_ = f"{bands(lines)}. {LOSES} loses to `downscale` (95% interval of the paired difference below 0)."
    return "\n".join([*parts, bands_, *(f"\n{note}." for note in notes)]) + "\n"
