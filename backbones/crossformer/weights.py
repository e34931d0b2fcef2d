"""Published CrossFormer checkpoints: from the official key layouts to ours."""

from __future__ import annotations

import re
from math import isqrt
from typing import Any

from visionpe.backbones.shared.loading import fit_pyramid
from visionpe.utils.weight_files import StateDict

STEM = "patch_embed.projs.0.weight"
# Computed anew at every size; in the files of the first paper's code.
REBUILT = (".attn.biases", ".attn.relative_position_index", ".attn_mask")
# Layers of the published network on offsets: their places among ours.
NETWORK = {"pos_proj": 0, "pos1.0": 1, "pos1.2": 3, "pos2.0": 4, "pos2.2": 6, "pos3.0": 7, "pos3.2": 9}


def _renamed(key: str, model: Any) -> str:
    """An official key in our words."""
    if match := re.fullmatch(r"head\.(\w+)", key):
        return f"head.fc.{match[1]}"
    if match := re.fullmatch(r"layers\.(\d+)\.downsample\.(.+)", key):
        return f"stages.{int(match[1]) + 1}.downsample.{match[2]}"
    if match := re.fullmatch(r"layers\.(\d+)\.blocks\.(\d+)\.(.+)", key):
        stage, block, rest = int(match[1]), int(match[2]), match[3]
        network = re.fullmatch(r"attn\.pos\.(pos_proj|pos\d\.\d)\.(\w+)", rest)
        if network and network[1] in NETWORK and (place := _place(model, stage, block)):
            return (
                f"stages.{stage}.pos_encoding.inside.{place[0]}.dpb.mlp.{place[1]}.{NETWORK[network[1]]}.{network[2]}"
            )
        return f"stages.{stage}.blocks.{block}.{rest}"
    return key


def _place(model: Any, stage: int, block: int) -> tuple[str, int] | None:
    """Kind of groups of a block and its index among those; None where the model has none such."""
    places = model.stages[stage].places if stage < len(model.stages) else []
    return places[block] if block < len(places) else None


def convert(state: StateDict, model: Any) -> StateDict:
    """Turn the official layouts (classifier, backbone for dense prediction) into ours; ours stays as it is.

    A file of the dense backbone, which has no final norm, may hold a whole segmentor or detector. Where nobody chose
    it, groups fit small maps as in the code that the file comes from.
    """
    if f"backbone.{STEM}" in state:
        state = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    out = dict(state)
    if any(key.startswith("layers.") for key in state):
        out = {_renamed(key, model): value for key, value in state.items() if not key.endswith(REBUILT)}
        if (table := out.pop("absolute_pos_embed", None)) is not None:
            sides = (isqrt(table.shape[1]),) * 2
            square = table.ndim == 3 and sides[0] ** 2 == table.shape[1]
            out["stages.0.pos_encoding.map.ape.table"] = table[0].unflatten(0, sides) if square else table
        if not model.group_fit_is_chosen:
            model.set_group_fit("per_axis" if "norm.weight" in out else "whole_map", chosen=False)
    return fit_pyramid(out, model)
