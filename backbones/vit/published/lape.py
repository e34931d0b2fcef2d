"""LaPE's code: a norm of the position embedding in every block of a DeiT."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from visionpe.backbones.vit.published.parts import part_of
from visionpe.backbones.vit.tables import adopt_policy, split_table
from visionpe.grid import Grid
from visionpe.utils.weight_files import Weights

NORM = re.compile(r"blocks\.(\d+)\.pe_norm\.(weight|bias)")
OWN = "pos_encoding.lape"


def matches(state: Weights) -> bool:
    return any(NORM.fullmatch(key) for key in state)


def convert(state: Weights, model: Any) -> Weights:
    """The norms and the table under our names.

    Fixed tables are in these files too: where the model computes the same numbers they are left out, else they are
    tables like any.

    Raises:
        RuntimeError: If the table has no shape that the model's tokens could have.
    """
    out = {}
    for key, value in state.items():
        match = NORM.fullmatch(key)
        out[f"{OWN}.norms.{match[1]}.{match[2]}" if match else key] = value
    problems = []
    lape = part_of(model, "lape")
    table = out.pop("pos_embed", None)
    if table is not None:
        slots, own = split_table(table if table.ndim == 3 else table[None], state, model, official=False)
        if lape is not None and _computes(lape.over, own, slots):
            return state.derived(out, by_authors=True)
        out[f"{OWN}.over.table"], out[f"{OWN}.prefix_table"] = own, slots[0]
        adopt_policy(model.pos_encoding.parts, "bicubic")
    if lape is not None and lape.over.spelling != "ape":
        problems.append(
            f"pos_encoding={lape.spelling!r} has no table, the file has one, and not of the same numbers; allowed: "
            "'lape(ape)', and 'lape(sincos(interleaved=True))' for those of 2D_sin"
        )
    return state.derived(out, problems=problems, by_authors=True)


def _computes(over: Any, table: Tensor, slots: Tensor) -> bool:
    """Whether an encoding without parameters adds a table ``(height, width, dim)``, and nothing to prefix tokens."""
    if any(True for _ in over.parameters()) or slots.any():
        return False
    grid = Grid(tuple(table.shape[:2]))
    added = over.add(torch.zeros(1, grid.num_spatial, table.shape[-1]), grid)
    return torch.allclose(added, table.float().flatten(0, 1)[None], atol=1e-5)
