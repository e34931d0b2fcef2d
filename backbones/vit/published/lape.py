"""LaPE's code: a norm of the position embedding in every block of a DeiT."""

from __future__ import annotations

import re
from typing import Any

from visionpe.backbones.vit.published.parts import part_of
from visionpe.backbones.vit.tables import adopt_policy, split_table
from visionpe.utils.weight_files import Weights

NORM = re.compile(r"blocks\.(\d+)\.pe_norm\.(weight|bias)")
OWN = "pos_encoding.lape"


def matches(state: Weights) -> bool:
    return any(NORM.fullmatch(key) for key in state)


def convert(state: Weights, model: Any) -> Weights:
    """The norms and the table under our names.

    Fixed tables are in these files too, with sines and cosines in an order of their own: they are tables like any.

    Raises:
        RuntimeError: If the table has no shape that the model's tokens could have.
    """
    out = {}
    for key, value in state.items():
        match = NORM.fullmatch(key)
        out[f"{OWN}.norms.{match[1]}.{match[2]}" if match else key] = value
    problems = []
    lape = part_of(model, "lape")
    if lape is not None and lape.over.spelling != "ape":
        problems.append(f"pos_encoding={lape.spelling!r} has no table, the file has one; allowed: 'lape(ape)'")
    table = out.pop("pos_embed", None)
    if table is not None:
        slots, out[f"{OWN}.over.table"] = split_table(
            table if table.ndim == 3 else table[None], state, model, official=False
        )
        out[f"{OWN}.prefix_table"] = slots[0]
        adopt_policy(model.pos_encoding.parts, "bicubic")
    return state.derived(out, problems=problems, by_authors=True)
