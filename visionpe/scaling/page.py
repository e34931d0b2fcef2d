"""The result as one html page that needs nothing else: curves to turn on and off, a table to sort, the settings."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from visionpe.scaling.metric import interval, name_of, paper_of, score
from visionpe.scaling.options import CONTROLS, DEFAULT, DOWNSCALE
from visionpe.scaling.plot import TITLES, assign_line_styles
from visionpe.scaling.report import bands
from visionpe.scaling.summary import Row
from visionpe.scaling.sweep import OK
from visionpe.viewing.figures import COLOURS
from visionpe.viewing.html import as_json, write_html

TEMPLATE = Path(__file__).with_name("page.html")
DASHES = ("solid", "dash", "dashdot", "longdash", "longdashdot", "8px,3px,2px,3px,2px,3px")
COLUMNS = (
    *("label", "policy", "protocol", "height", "width", "factor", "status", "n", "seeds", "top1", "top1_low"),
    *("top1_high", "balanced", "balanced_low", "balanced_high", "versus_downscale", "versus_low", "versus_high"),
    *("agreement", "entropy", "entropy_change", "distance", "distance_change", "paper", "images_per_s", "tokens"),
)
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")


@dataclass(frozen=True)
class Curve:
    """One model under one policy or control.

    Args:
        label: The model.
        policy: Its policy or control.
        x, y: Points; ``x`` in factors of the trained size.
        low, high: Of the confidence band, or empty for none.
        hover: Html for each point.
        paper: What a paper states for each point, or None.
    """

    label: str
    policy: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    hover: Sequence[str] = ()
    paper: Sequence[float | None] = ()


@dataclass(frozen=True)
class Panel:
    """One figure.

    Args:
        title: Above it.
        unit: What is on the vertical axis.
        curves: What is in it.
        notes: Sentences below all figures.
    """

    title: str
    unit: str
    curves: Sequence[Curve]
    notes: Sequence[str] = field(default=())


def _traces(curve: Curve, colour: str, look: int) -> list[dict[str, Any]]:
    """What plotly draws for a curve; all of it goes with the curve's entry in the legend."""
    control = curve.policy in CONTROLS
    name = html.escape(curve.label if curve.policy == DEFAULT else f"{curve.label}, {curve.policy}")
    dash = ("dot" if curve.policy == DOWNSCALE else "dashdot") if control else DASHES[look % len(DASHES)]
    meta = {"model": curve.label, "policy": curve.policy, "control": control}
    common: dict[str, Any] = {"legendgroup": f"{curve.label}|{curve.policy}", "name": name, "type": "scatter"}
    marker = {"size": 7, "symbol": SYMBOLS[look % len(SYMBOLS)]}
    drawn = []
    if len(curve.low) and not control:
        there_and_back = {"x": [*curve.x, *curve.x[::-1]], "y": [*curve.high, *curve.low[::-1]]}
        band = {"fill": "toself", "fillcolor": colour, "opacity": 0.13, "line": {"width": 0}, "mode": "lines"}
        quiet = {"showlegend": False, "hoverinfo": "skip"}
        drawn.append({**common, **there_and_back, **band, **quiet, "meta": meta | {"band": True}})
    line = {"color": colour, "dash": dash, "width": 1.2 if control else 2}
    text = {"text": list(curve.hover), "hovertemplate": "%{text}<extra></extra>"} if curve.hover else {}
    mode = {"mode": "lines"} if control else {"mode": "lines+markers", "marker": marker}
    drawn.append({**common, "x": [*curve.x], "y": [*curve.y], "line": line, **mode, **text, "meta": meta})
    stated = [(x, value) for x, value in zip(curve.x, curve.paper) if value is not None]
    if stated:
        x, y = zip(*stated)
        cross = {"mode": "markers", "marker": {"symbol": "x-thin", "size": 9, "line": {"color": colour, "width": 2}}}
        hover = {"hovertemplate": f"{name}<br>stated in the paper: %{{y:.1f}}<extra></extra>"}
        drawn.append({**common, "x": x, "y": y, **cross, **hover, "showlegend": False, "meta": meta})
    return drawn


def figures(panels: Sequence[Panel]) -> list[Any]:
    """Plotly's figure of each panel; a model has one colour and a policy one line style in all of them."""
    import plotly.graph_objects as go

    curves = [curve for panel in panels for curve in panel.curves]
    labels = list(dict.fromkeys(curve.label for curve in curves))
    looks = assign_line_styles([{"label": curve.label, "policy": curve.policy} for curve in curves])
    drawn = []
    for panel in panels:
        figure = go.Figure()
        for curve in panel.curves:
            colour = COLOURS[labels.index(curve.label) % len(COLOURS)]
            figure.add_traces([go.Scatter(trace) for trace in _traces(curve, colour, looks.get(curve.policy, 0))])
        ticks = sorted({round(x, 2) for curve in panel.curves for x in curve.x})
        texts = [f"{tick:g}x" for tick in ticks]
        figure.update_layout(
            title=panel.title,
            template="plotly_white",
            hovermode="closest",
            margin={"t": 50, "r": 20, "b": 50, "l": 60},
            xaxis={"type": "log", "tickvals": ticks, "ticktext": texts, "title": "resolution, times the trained size"},
            yaxis={"title": panel.unit},
        )
        drawn.append(figure)
    return drawn


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    def cell(value: Any) -> str:
        return "" if value is None else f"{value:.4g}" if isinstance(value, float) else html.escape(str(value))

    if not rows:
        return ""
    head = "".join(f"<th>{html.escape(key)}</th>" for key in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{cell(row.get(key))}</td>" for key in rows[0]) + "</tr>" for row in rows)
    table = f'<div class="wrap"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    return f"<details open><summary>Table</summary>{table}</details>"


def write_page(
    path: Path,
    title: str,
    panels: Sequence[Panel],
    *,
    table: Sequence[Mapping[str, Any]] = (),
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: The file.
        title: Of the page.
        panels: One figure each.
        table: Rows, all with the keys of the first, shown below the figures and sorted by a click on a column.
        details: What is folded in below, shown as JSON.
    """
    from plotly.offline import get_plotlyjs

    notes = dict.fromkeys(note for panel in panels for note in panel.notes)
    folded = [
        f"<details><summary>{html.escape(name)}</summary>"
        f"<pre>{html.escape(json.dumps(content, indent=1, default=str))}</pre></details>"
        for name, content in (details or {}).items()
    ]
    drawn = [figure.to_plotly_json() for figure in figures(panels)]
    parts = {
        "NOTES": "".join(f'<p class="note">{html.escape(note)}</p>' for note in notes),
        "TABLE": _table(table),
        "DETAILS": "".join(folded),
        "FIGURES": as_json(drawn),
        "PLOTLY": get_plotlyjs(),
    }
    write_html(path, TEMPLATE, title, parts)


def _hover(line: Row) -> str:
    low, high = interval(line)
    texts = [
        f"<b>{html.escape(line['label'])}</b>, {html.escape(line['policy'])}",
        f"{line['height']}x{line['width']}, {line['factor']:.2f}x",
        f"{name_of([line])} {score(line):.1f}% [{low:.1f}, {high:.1f}], n = {line['n']:,}"
        + (f", {line['seeds']} seeds" if line["seeds"] > 1 else ""),
    ]
    if line.get("versus_downscale") is not None:
        bounds = f"[{line['versus_low']:+.1f}, {line['versus_high']:+.1f}]"
        texts.append(f"{line['versus_downscale']:+.1f} points to downscale {bounds}")
    if line.get("agreement") is not None:
        texts.append(f"agreement with the trained size {line['agreement']:.1f}%")
    for key, unit in (("entropy", "nats"), ("distance", "tokens")):
        if line.get(key) is not None:
            change = line.get(f"{key}_change")
            texts.append(f"{key} {line[key]:.2f} {unit}" + ("" if change is None else f" ({change:+.2f})"))
    return "<br>".join(texts)


def panels(lines: Sequence[Row]) -> list[Panel]:
    """A panel a protocol of a classification sweep.

    Args:
        lines: From :func:`visionpe.scaling.summary.summarise`. Those that failed are named in the notes.
    """
    made = []
    for protocol in dict.fromkeys(line["protocol"] for line in lines):
        chosen = [line for line in lines if line["protocol"] == protocol]
        curves = []
        for label, policy in dict.fromkeys((line["label"], line["policy"]) for line in chosen):
            points = [x for x in chosen if (x["label"], x["policy"], x["status"]) == (label, policy, OK)]
            points.sort(key=lambda x: x["factor"])
            if not points:
                continue
            x, y, paper = [p["factor"] for p in points], [score(p) for p in points], [paper_of(p) for p in points]
            low, high = zip(*map(interval, points))
            curves.append(Curve(label, policy, x, y, low, high, [_hover(line) for line in points], paper))
        notes = [f"Bands: {bands(lines)}."]
        for line in chosen:
            if line["status"] != OK:
                what = f"{line['label']}, {line['policy']}, at {line['height']}x{line['width']}"
                notes.append(f"Not measured: {what}: {line['status']} ({line['reason']})")
        made.append(Panel(TITLES.get(protocol, protocol), f"{name_of(chosen)} accuracy, %", curves, notes))
    return made


def table(lines: Sequence[Row]) -> list[Row]:
    """The lines of a sweep as a table of the page."""
    return [{key: line.get(key) for key in COLUMNS} for line in lines]
