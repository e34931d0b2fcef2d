"""CROMA's code: encoders of radar and of optical images, in one file as a dict of state dicts."""

from __future__ import annotations

import re
from typing import Any

import torch

from visionpe.backbones.vit.published.parts import check_norms
from visionpe.utils.weight_files import Weights

STEM = "linear_input.weight"
LAYER = re.compile(r"transformer\.layers\.(\d+)\.(.+)\.(weight|bias)")
NAMES = {
    "0.input_norm": "norm1",
    "0.to_qkv": "attn.qkv",
    "0.to_out": "attn.proj",
    "1.input_norm": "norm2",
    "1.net.0": "mlp.fc1",
    "1.net.3": "mlp.fc2",
}
# Of all published encoders.
PATCH, HEADS, EPS = 8, 16, 1e-5


def matches(state: Weights) -> bool:
    return any(key.endswith(STEM) for key in state)


def convert(state: Weights, model: Any) -> Weights:
    """The encoder of as many channels as the model has.

    The joint encoder attends from one stream to the other and the heads of the encoders average before them: neither
    is part of a backbone, and they are left out. There is no bias in the projection to queries, keys and values: a
    model with one gets zeros.
    """
    channels = {
        key.removesuffix(STEM): value.shape[1] // PATCH**2 for key, value in state.items() if key.endswith(STEM)
    }
    wanted = model.patch_embed.proj.in_channels
    owner = next((name for name, count in channels.items() if count == wanted), None)
    problems = check_norms(model, EPS)
    if owner is None:
        owner = next(iter(channels))
        allowed = " or ".join(f"{n} ({name.rstrip('.') or 'encoder'})" for name, n in channels.items())
        problems.append(f"in_chans={wanted} is of no encoder of the file; allowed: {allowed}")
    if model.num_heads != HEADS:
        problems.append(f"num_heads={model.num_heads} is not that of the file's code; allowed: {HEADS}")
    out = {}
    for key, value in state.items():
        name = key.removeprefix(owner)
        if not key.startswith(owner) or name.startswith(("s1_", "s2_", "joint_")):
            continue
        if match := LAYER.fullmatch(name):
            out[f"blocks.{match[1]}.{NAMES.get(match[2], match[2])}.{match[3]}"] = value
        elif name == STEM:
            out["patch_embed.proj.weight"] = value.unflatten(1, (-1, PATCH, PATCH))
        else:
            renamed = name.replace("linear_input.", "patch_embed.proj.").replace("transformer.norm_out.", "norm.")
            out[renamed] = value
    for i, block in enumerate(model.blocks):
        if block.attn.qkv.bias is not None:
            out.setdefault(f"blocks.{i}.attn.qkv.bias", torch.zeros_like(block.attn.qkv.bias))
    return state.derived(out, problems=problems, by_authors=True)
