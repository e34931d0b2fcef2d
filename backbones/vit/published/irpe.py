"""iRPE's code, DeiT with tables of buckets in every block."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from visionpe.backbones.vit.published.parts import part_of
from visionpe.utils.weight_files import Weights

TABLE = re.compile(r"blocks\.(\d+)\.attn\.rpe_([qkv])\.(?:rp_(rows|cols)\.)?lookup_table_(?:weight|bias)")
PARTS = {None: 0, "rows": 0, "cols": 1}


def matches(state: Weights) -> bool:
    return any(TABLE.fullmatch(key) for key in state)


def convert(state: Weights, model: Any) -> Weights:
    """The tables of all blocks stacked, rows before columns.

    Without prefix tokens the published tables lack the last bucket, which serves these: ours gets one that nothing
    reads.
    """
    out: dict[str, Tensor] = {}
    tables: dict[str, dict[tuple[int, int], Tensor]] = defaultdict(dict)
    for key, value in state.items():
        if match := TABLE.fullmatch(key):
            tables[match[2]][int(match[1]), PARTS[match[3]]] = value
        else:
            out[key] = value
    irpe = part_of(model, "irpe")
    for letter, found in tables.items():
        table = _stacked(found)
        if irpe is not None and not model.num_prefix_tokens:
            axis = -2 if letter == "v" else -1
            lacking = int(table.shape[axis] == irpe.buckets - 1)
            table = F.pad(table, (0, 0, 0, lacking) if axis == -2 else (0, lacking))
        out[f"pos_encoding.irpe.{letter}_table"] = table
    return state.derived(out, by_authors=True)


def _stacked(found: dict[tuple[int, int], Tensor]) -> Tensor:
    """Tables by block and part as one, ``(depth, parts, ...)``.

    Raises:
        RuntimeError: If some are missing.
    """
    blocks, parts = (sorted({place[axis] for place in found}) for axis in (0, 1))
    for place in product(blocks, parts):
        if place not in found:
            raise RuntimeError(f"the file lacks a table of iRPE in block {place[0]}, which other blocks have")
    return torch.stack([torch.stack([found[block, part] for part in parts]) for block in blocks])
