"""ComRoPE's code, over CLIP's image model as transformers has it."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from visionpe.backbones.vit.published.parts import check_norms, part_of
from visionpe.backbones.vit.tables import sample_rows
from visionpe.utils.weight_files import Weights

GENERATORS = re.compile(r"(?:vision_model\.)?encoder\.layers\.(\d+)\.self_attn\.freqs")
LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
NAMES = {
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "self_attn.out_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
RENAMED = {
    "embeddings.patch_embedding.weight": "patch_embed.proj.weight",
    **{f"pre_layrnorm.{kind}": f"norm_pre.{kind}" for kind in ("weight", "bias")},  # so spelled there
    **{f"post_layernorm.{kind}": f"norm.{kind}" for kind in ("weight", "bias")},
    **{f"classification_head.{kind}": f"head.{kind}" for kind in ("weight", "bias")},
}
OWN = "pos_encoding.comrope"
# Where the class token stands, and what norms add to variances.
CLASS_POSITION, EPS = 0.5, 1e-5


def matches(state: Weights) -> bool:
    return any(GENERATORS.fullmatch(key) for key in state)


def convert(state: Weights, model: Any) -> Weights:
    """Queries, keys and values in one projection; generators and multipliers of all blocks stacked.

    The class token turns as it does there where nobody chose its position. A table of the file is read as there: see
    :func:`~visionpe.backbones.vit.tables.sample_rows`.
    """
    state = state.derived({key.removeprefix("vision_model."): value for key, value in state.items()})
    out: dict[str, Tensor] = {}
    depth = 1 + max(int(match[1]) for key in state if (match := GENERATORS.fullmatch(key)))
    for key, value in state.items():
        match = LAYER.fullmatch(key)
        if match and match[2] in NAMES:
            out[f"blocks.{match[1]}.{NAMES[match[2]]}.{match[3]}"] = value
        elif key == "embeddings.class_embedding":
            out["cls_token"] = value.view(1, 1, -1)
        elif key not in ("embeddings.position_embedding", "embeddings.position_ids") and "self_attn." not in key:
            out[RENAMED.get(key, key)] = value
    for i in range(depth):
        attn = f"encoder.layers.{i}.self_attn"
        for kind in ("weight", "bias"):
            out[f"blocks.{i}.attn.qkv.{kind}"] = torch.cat([state[f"{attn}.{x}_proj.{kind}"] for x in "qkv"])
    attns = [f"encoder.layers.{i}.self_attn" for i in range(depth)]
    out[f"{OWN}.generators"] = torch.stack([state[f"{attn}.freqs"][:, 0] for attn in attns])
    if f"{attns[0]}.multiplier" in state:
        out[f"{OWN}.multiplier"] = torch.stack([state[f"{attn}.multiplier"][0, ..., 0, 0] for attn in attns])
    if model.patch_embed.proj.bias is not None:
        out["patch_embed.proj.bias"] = torch.zeros_like(model.patch_embed.proj.bias)
    table, problems = state.get("embeddings.position_embedding"), _problems(model)
    if table is not None:
        out |= sample_rows(table[0], out["cls_token"], model)
        if len(table) > 1:
            problems.append(f"embeddings.position_embedding is of {len(table)} frames; allowed: files of images, 1")
    return state.derived(out, problems=problems, by_authors=True)


def _problems(model: Any) -> list[str]:
    """What the model computes otherwise than the published code."""
    problems, comrope = check_norms(model, EPS), part_of(model, "comrope")
    act, x = model.blocks[0].mlp.act, torch.linspace(-3, 3, 7)
    if not torch.allclose(act(x.clone()), x * (1.702 * x).sigmoid(), atol=1e-5):
        problems.append(f"act_layer={type(act).__name__} is not that of the file's code; allowed: 'quick_gelu'")
    if comrope is not None and comrope.prefix_position is None:
        comrope.prefix_position = CLASS_POSITION
        comrope.adopted["prefix_position"] = CLASS_POSITION
    elif comrope is not None and comrope.prefix_position != CLASS_POSITION:
        problems.append(
            f"prefix_position={comrope.prefix_position} of comrope is not that of the file's code; "
            f"allowed: {CLASS_POSITION}"
        )
    return problems
