"""Rows of several training seeds into one line each, with an interval and a comparison with the baseline."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from visionpe.scaling.images import subset
from visionpe.scaling.metric import outcomes
from visionpe.scaling.options import CONTROLS, DEFAULT, DOWNSCALE, METRICS, Metric
from visionpe.scaling.statistics import bootstrap, unpack_classes
from visionpe.scaling.sweep import OK

MEANS = ("top1", "top5", "balanced", "images_per_s", "peak_bytes")
# Each None where it was not measured or does not apply.
EXTRA = ("agreement", "entropy", "distance", "entropy_change", "distance_change", "paper")
Row = dict[str, Any]


def _agreement(row: Row, native: Row) -> float | None:
    """Percent of the images of both rows; None where unreadable images make it unsure which they are."""
    guesses = []
    for x in (row, native):
        classes, indices = unpack_classes(x["predicted"]), subset(*x["drawn"])
        if len(classes) != len(indices):
            return None
        guesses.append(dict(zip(indices, classes.tolist())))
    same = [guesses[0][i] == guesses[1][i] for i in guesses[0].keys() & guesses[1].keys()]
    return 100 * fmean(same) if same else None


def _change(row: Row, native: Row, key: str) -> float | None:
    values = row.get(key), native.get(key)
    return None if values[0] is None or values[1] is None else values[0] - values[1]


def against_native(rows: Sequence[Row]) -> list[Row]:
    """Compare every row with the same model as built at the size that it was trained at.

    Args:
        rows: From the sweep, in full.

    Returns:
        The rows with ``agreement``, percent of images of the same predicted class, and ``entropy_change`` and
        ``distance_change``, differences of the diagnostics; None where a row failed or the other was not measured.
    """
    natives: dict[tuple, Row] = {}
    # At the trained size the controls do nothing, and both protocols show the same image.
    as_built = [row for row in rows if row["policy"] in (DEFAULT, *CONTROLS) and row.get("native")]
    for row in sorted(as_built, key=lambda row: (row["policy"] == DEFAULT, row["protocol"] == "object")):
        if row["status"] == OK:
            natives[row["label"], row["seed"]] = row
    compared = []
    for row in rows:
        native = natives.get((row["label"], row["seed"]))
        known = row["status"] == OK and native is not None
        extra: Row = {"agreement": None, "entropy_change": None, "distance_change": None}
        if known and native is not None:
            extra["agreement"] = _agreement(row, native)
            extra |= {f"{key}_change": _change(row, native, key) for key in ("entropy", "distance")}
        compared.append(row | extra)
    return compared


def _line(rows: Sequence[Row], metric: Metric) -> Row:
    first = rows[0]
    line: Row = {
        key: first.get(key)
        for key in ("label", "policy", "protocol", "height", "width", "factor", "status", "reason", "tokens")
    }
    line |= {"metric": metric}
    line["seeds"] = len({row["seed"] for row in rows})
    failed = [row for row in rows if row["status"] != OK]
    if failed:
        return line | {"status": failed[0]["status"], "reason": failed[0]["reason"]}
    line |= {"n": first["n"], "flops": first["flops"], "corrupt": len(first["corrupt"])}
    for key in (*MEANS, *EXTRA):
        values = [row[key] for row in rows if row.get(key) is not None]
        line[key] = fmean(values) if len(values) == len(rows) else None
    for what in (*METRICS, "top5"):
        line |= {f"{what}_{end}": first[f"{what}_{end}"] for end in ("low", "high")}
    if len(rows) > 1:
        for what in METRICS:
            line[f"{what}_low"], line[f"{what}_high"] = bootstrap([outcomes(row, what) for row in rows])
        for end, pick in (("low", min), ("high", max)):  # no outcomes are kept for top-5: the spread over seeds
            line[f"top5_{end}"] = pick(row["top5"] for row in rows)
    return line


def _versus(rows: Sequence[Row], baseline: Sequence[Row], metric: Metric) -> Row:
    """Points above the baseline on the same images, and whether the interval of the difference is below zero."""
    other = {row["seed"]: row for row in baseline}
    pairs = [(row, other[row["seed"]]) for row in rows if row["seed"] in other]
    if not pairs or any(row["status"] != OK for pair in pairs for row in pair):
        return {}
    differences = [outcomes(a, metric) - outcomes(b, metric) for a, b in pairs]
    low, high = bootstrap(differences)
    points = 100 * fmean(float(d.mean()) for d in differences)
    return {"versus_downscale": points, "versus_low": low, "versus_high": high, "loses": high < 0}


def summarise(rows: Sequence[Row], metric: Metric = "top1") -> list[Row]:
    """One line for each model, policy, protocol and resolution.

    Args:
        rows: From the sweep, or from :func:`against_native`. Those that differ in the training seed only become
            one line.
        metric: By which the lines are read, and compared with the baseline: ``top1`` or ``balanced``.

    Returns:
        Lines with the mean over seeds. ``top1_low`` and ``top1_high`` are Wilson's 95% interval for one seed and a
        paired bootstrap over seeds and images for several, ``balanced_low`` and ``balanced_high`` always a bootstrap;
        ``versus_downscale`` is the difference to the baseline in points, on the same images, with its bootstrap
        interval, and ``loses`` says that the interval is below zero. What :func:`against_native` and the diagnostics
        give are means over seeds.
    """
    groups: dict[tuple, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["label"], row["policy"], row["protocol"], row["height"], row["width"]].append(row)
    lines = []
    for (label, policy, *where), members in groups.items():
        line = _line(members, metric)
        if policy not in CONTROLS:
            line |= _versus(members, groups.get((label, DOWNSCALE, *where), []), metric)
        lines.append(line)
    return lines
