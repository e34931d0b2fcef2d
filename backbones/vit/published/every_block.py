"""LaPE's code in its mode ``unshare``: a table for every block of a DeiT."""

from __future__ import annotations

import re
from typing import Any

import torch

from visionpe.backbones.vit.published.parts import part_of
from visionpe.backbones.vit.tables import adopt_policy, split_table
from visionpe.utils.weight_files import Weights

TABLE = re.compile(r"pos_embed(\d+)")
OWN = "pos_encoding.every_block"


def matches(state: Weights) -> bool:
    return "pos_embed0" in state


def convert(state: Weights, model: Any) -> Weights:
    """The tables under our names; what the first adds to the class token is part of that token.

    Raises:
        RuntimeError: If a table has no shape that the model's tokens could have.
    """
    out = {key: value for key, value in state.items() if not TABLE.fullmatch(key)}
    slots = []
    for layer in range(sum(1 for key in state if TABLE.fullmatch(key))):
        slot, out[f"{OWN}.tables.{layer}.table"] = split_table(state[f"pos_embed{layer}"], state, model, official=False)
        slots.append(slot)
    out["cls_token"] = out["cls_token"] + slots[0]
    out[f"{OWN}.prefix_table"] = torch.cat(slots)
    problems = []
    part = part_of(model, "every_block")
    if part is not None:
        adopt_policy(part.tables, "bicubic")
        if part.shared or part.beneath.spelling != "ape":
            problems.append(
                f"pos_encoding={part.spelling!r} with shared={part.shared} has no table for every block, as the file; "
                "allowed: 'every_block(ape, prefix_slots=1)'"
            )
    return state.derived(out, problems=problems, by_authors=True)
