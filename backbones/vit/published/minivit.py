"""MiniViT's code: a DeiT with iRPE whose blocks run several times, with norms and tables of their own each time."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from visionpe.utils.weight_files import Weights

SHARED = re.compile(r"blocks\.(\d+)\.block\.(.+)")
OWN = re.compile(r"(.+)\.instances\.(\d+)\.(.+)")
# Convolutions 1 x 1 across heads, before and after the softmax.
HEADS = {"attn.conv_l.weight": "attn.mix_logits", "attn.conv_w.weight": "attn.mix_weights"}


def matches(state: Weights) -> bool:
    return any(SHARED.fullmatch(key) for key in state)


def convert(state: Weights, model: Any) -> Weights:
    """The layout of iRPE's DeiT, with a block for each run: what runs share is there as often."""
    times = 1 + max(int(match[2]) for key in state if (match := OWN.fullmatch(key)))
    out: dict[str, Tensor] = {}
    for key, value in state.items():
        match = SHARED.fullmatch(key)
        if match is None:
            out[key] = value
            continue
        first, rest = int(match[1]) * times, match[2]
        if own := OWN.fullmatch(rest):
            name, runs = f"{own[1]}.{own[3]}", [int(own[2])]
        else:
            name, runs = rest, list(range(times))
        value = value.flatten(1) if name in HEADS else value
        out |= {f"blocks.{first + run}.{HEADS.get(name, name)}": value for run in runs}
    return state.derived(out, by_authors=True)
