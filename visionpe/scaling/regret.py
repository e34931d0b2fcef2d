"""How good the choices of ``--policy auto`` were, once the labels are read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from visionpe.scaling.options import AUTO, DEFAULT, DOWNSCALE, TILING

Row = dict[str, Any]


def regrets(rows: Sequence[Row], *, metric: str = "top1") -> list[Row]:
    """Every choice beside what the labels say.

    Args:
        rows: From the sweep.
        metric: By which policies are compared, percent.

    Returns:
        One for each ``auto`` row at another than the trained size: ``chosen``, ``warns``, ``best`` (the policy, or
        ``downscale``, with the highest metric on these very images) and, in points of it, ``regret`` (best less auto;
        below zero where a combination was chosen that no row stands for), ``default_regret`` (best less default),
        ``over_downscale`` (auto less downscale); None where the other row is missing.
    """
    groups: dict[tuple, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        if row["status"] == "ok" and not row.get("native"):
            groups[row["label"], row["seed"], row["protocol"], row["height"], row["width"]][row["policy"]] = row
    found = []
    for group in groups.values():
        # What may be chosen: an image is not tiled by a policy.
        named = {name: row for name, row in group.items() if name not in (TILING, AUTO)}
        if AUTO not in group or not named.keys() - {DOWNSCALE}:
            continue
        auto, best = group[AUTO], max(named, key=lambda name: named[name][metric])

        def less(name: str, minuend: float, group: dict[str, Row] = group) -> float | None:
            return minuend - group[name][metric] if name in group else None

        top = named[best][metric]
        place = {key: auto[key] for key in ("label", "seed", "protocol", "height", "width", "factor")}
        choice = {key: auto.get(key) for key in ("chosen", "chosen_sure", "warns")}
        points = {"regret": top - auto[metric], "default_regret": less(DEFAULT, top)}
        found.append({**place, **choice, "best": best, **points, "over_downscale": less(DOWNSCALE, auto[metric])})
    return found


def describe_choices(found: Sequence[Row]) -> list[str]:
    """A sentence for each protocol.

    Args:
        found: From :func:`regrets`.
    """
    sentences = []
    for protocol in dict.fromkeys(row["protocol"] for row in found):
        own = [row for row in found if row["protocol"] == protocol]
        regret, default = [row["regret"] for row in own], [row["default_regret"] for row in own]
        text = (
            f"auto, {protocol} protocol: {fmean(regret):.1f} points below the best policy in the mean of {len(own)} "
            f"rows (worst {max(regret):.1f})"
        )
        if None not in default:
            text += f", the default policy {fmean(default):.1f} (worst {max(default):.1f})"
        versus = [row for row in own if row["over_downscale"] is not None]
        if versus:
            below = [row for row in versus if row["over_downscale"] < 0]
            silent = sum(not row["warns"] for row in below)
            idle = sum(bool(row["warns"]) for row in versus) - (len(below) - silent)
            text += (
                f"; below downscale in {len(below)}, of which it warned in {len(below) - silent}, and {idle} warnings "
                "more"
            )
        sentences.append(f"{text}.")
    return sentences
