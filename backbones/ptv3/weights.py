"""Published Point Transformer V3 checkpoints: from Pointcept's key layouts to ours."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from visionpe.utils.weight_files import StateDict

# What training code and pipelines put ahead of the keys.
PREFIXES = ("module.", "backbone.")
BLOCK = re.compile(r"(enc|dec)\.(?:enc|dec)(\d+)\.block(\d+)\.(.+)")
# Inside a block: ours. What comes before it stands with the block, or with the encoding of the stage.
INSIDE = {"norm1.0.": "norm1.", "norm2.0.": "norm2.", "mlp.0.": "mlp.", "ls1.0.": "ls1.", "ls2.0.": "ls2."}
GENERATOR = {"cpe.0.weight": "conv.kernel", "cpe.0.bias": "conv.bias", "cpe.1.": "linear.", "cpe.2.": "norm."}
TABLE = "attn.rpe.rpe_table"
AROUND = (
    (re.compile(r"embedding\.stem\.conv\.weight"), "stem.proj.kernel"),
    (re.compile(r"embedding\.stem\.(?:conv|linear)\.(.+)"), r"stem.proj.\1"),
    (re.compile(r"embedding\.stem\.norm\.(.+)"), r"stem.norm.\1"),
    (re.compile(r"enc\.enc(\d+)\.down\.proj\.(.+)"), r"stages.\1.change.proj.\2"),
    (re.compile(r"enc\.enc(\d+)\.down\.norm\.0\.(.+)"), r"stages.\1.change.norm.\2"),
    (re.compile(r"seg_head\.(.+)"), r"classifier.\1"),
)
UP = re.compile(r"dec\.dec(\d+)\.up\.(.+)")


def _bare(key: str) -> str:
    for prefix in PREFIXES:
        key = key.removeprefix(prefix)
    return key


def _kernel(weight: Tensor) -> Tensor:
    """spconv's ``(dim_out, width, width, width, dim)``, or of its first version ``(width, ..., dim, dim_out)``."""
    if weight.ndim != 5:
        return weight
    if len(set(weight.shape[1:4])) == 1 and len(set(weight.shape[:3])) != 1:
        weight = weight.permute(1, 2, 3, 4, 0)
    return weight.permute(2, 1, 0, 3, 4).flatten(0, 2)  # the first axis fastest


def published(state: StateDict, model: Any) -> StateDict:
    """A file in the published layout in ours; ours stays as it is.

    An encoder leaves the decoder out; the token of masked voxels, which pre-training alone has, is left out too.
    """
    state = {_bare(key): value for key, value in state.items()}
    if not any(key.startswith("embedding.stem.") for key in state):
        return state
    levels, out = len(model.depths), {}
    tables: dict[str, dict[int, Tensor]] = defaultdict(dict)
    for key, value in state.items():
        if match := BLOCK.fullmatch(key):
            place = f"stages.{match[2]}" if match[1] == "enc" else f"decoder.{levels - 2 - int(match[2])}"
            block, rest = match[3], match[4]
            if rest == TABLE:
                tables[f"{place}.pos_encoding.inside.window.rpb_axes.table"][int(block)] = value
                continue
            before = next((name for name in (*INSIDE, *GENERATOR) if rest.startswith(name)), "")
            if before in GENERATOR:
                name = GENERATOR[before] + rest[len(before) :]
                key = f"{place}.pos_encoding.map.xcpe.layers.{block}.{name}"
            else:
                key = f"{place}.blocks.{block}.{INSIDE.get(before, before)}{rest[len(before) :]}"
        elif match := UP.fullmatch(key):
            key = f"decoder.{levels - 2 - int(match[1])}.change.{match[2]}"
        elif key != "embedding.mask_token":
            for pattern, ours in AROUND:
                key = pattern.sub(ours, key) if pattern.fullmatch(key) else key
        else:
            continue
        out[key] = _kernel(value) if key.endswith(".kernel") else value
    for key, of_blocks in tables.items():
        stacked = torch.stack([of_blocks[i] for i in sorted(of_blocks)])
        out[key] = stacked.unflatten(1, (3, -1))  # (depth, axes, offsets, heads)
    if not len(getattr(model, "decoder", ())):
        out = {key: value for key, value in out.items() if not key.startswith(("decoder.", "classifier."))}
    return out
