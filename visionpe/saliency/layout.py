"""DINOv2's vision transformer as Hugging Face lays it out, in the names of timm's."""

from __future__ import annotations

import re
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from visionpe.saliency.onnx_weights import Arrays
from visionpe.utils.errors import InputError

HEAD_DIM = 64  # of every DINOv2
# Outside the blocks; the exporter split the position table into the class token's row and the patches' rows.
CLASS_POSITION, TABLE = "embeddings.Concat", "embeddings.Reshape"
PATCHES = "embeddings.patch_embeddings.projection"
OUTSIDE = {
    "embeddings.cls_token": "cls_token",
    f"{PATCHES}.weight": "patch_embed.proj.weight",
    f"{PATCHES}.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
# Inside a block; query, key and value become one.
INSIDE = {
    "attention.output.dense": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
}
QUERY_KEY_VALUE = [f"attention.attention.{name}" for name in ("query", "key", "value")]


def backbone_arguments(arrays: Arrays) -> dict[str, Any]:
    """What ``timm.create_model("vit_small_patch14_dinov2")`` has to be told to have these shapes.

    Args:
        arrays: Of the backbone, named as Hugging Face's ``Dinov2Model`` names them.

    Raises:
        InputError: If what tells the shape is missing or has none of its own.
    """
    patch = _get(arrays, f"{PATCHES}.weight", 4)  # (dim, channels, patch, patch)
    table = _get(arrays, TABLE, 3)  # (1, side * side, dim)
    side, dim = isqrt(table.shape[1]), patch.shape[0]
    if side**2 != table.shape[1] or dim % HEAD_DIM or patch.shape[2] != patch.shape[3]:
        raise InputError(
            f"the backbone has patches {tuple(patch.shape)} and a position table {tuple(table.shape)}; allowed: square "
            f"ones, of a width that {HEAD_DIM} divides"
        )
    depth = len({match[1] for name in arrays if (match := re.match(r"encoder\.layer\.(\d+)\.", name))})
    return {
        "patch_size": patch.shape[-1],
        "in_chans": patch.shape[1],
        "embed_dim": dim,
        "depth": depth,
        "num_heads": dim // HEAD_DIM,
        "img_size": side * patch.shape[-1],
    }


def to_timm(arrays: Arrays) -> Arrays:
    """The backbone's arrays as a state dict of timm's ``VisionTransformer``.

    Args:
        arrays: Of the backbone, named as Hugging Face's ``Dinov2Model`` names them.

    Returns:
        Names that are not known stay as they are, for strict loading to refuse.

    Raises:
        InputError: If a part of the position table, or of a query, key and value, is missing.
    """
    arrays = dict(arrays)
    parts = [_get(arrays, name, 3) for name in (CLASS_POSITION, TABLE)]
    out = {"pos_embed": torch.cat(parts, dim=1)}  # (1, 1 + N, dim)
    for name, value in arrays.items():
        match = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", name)
        if name in (CLASS_POSITION, TABLE):
            continue
        if match is None:
            out[OUTSIDE.get(name, name)] = value
            continue
        block, inner = f"blocks.{match[1]}.", match[2]
        stem, _, kind = inner.rpartition(".")
        if stem in QUERY_KEY_VALUE:
            three = [_get(arrays, f"encoder.layer.{match[1]}.{each}.{kind}", value.ndim) for each in QUERY_KEY_VALUE]
            out[f"{block}attn.qkv.{kind}"] = torch.cat(three)  # (3 * dim, ...)
        else:
            out[block + INSIDE.get(inner, f"{INSIDE.get(stem, stem)}.{kind}")] = value
    return out


def _get(arrays: Arrays, name: str, axes: int) -> Tensor:
    value = arrays.get(name)
    if value is None or value.ndim != axes:
        found = "none" if value is None else f"one of shape {tuple(value.shape)}"
        raise InputError(f"the backbone has no {name!r} of {axes} axes (found: {found}); allowed: DINOv2's layout")
    return value
