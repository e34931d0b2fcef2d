"""Published ViT checkpoints: from timm's and the official key layouts to ours."""

from __future__ import annotations

from collections.abc import Iterable
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from visionpe.backbones.shared.loading import StateDict, fit_patches
from visionpe.base import PositionEncoding
from visionpe.encodings.absolute.ape import AbsolutePositionEmbedding
from visionpe.encodings.wrappers.base import innermost

TABLE = "pos_encoding.ape.table"
FREQS = "pos_encoding.rope_mixed.freqs"
# Coordinates and fixed frequencies that are computed anew at every size.
REBUILT = ("freqs_t_x", "freqs_t_y", "rope.")


def split_table(table: Tensor, grid_size: tuple[int, int], max_prefix: int) -> tuple[Tensor, Tensor]:
    """``(1, N, dim)`` into the prefix slots ``(1, P, dim)`` and the table ``(height, width, dim)``."""
    tokens = table.shape[1]
    sides = {grid_size[0] * grid_size[1]: grid_size}  # the model's own grid first: it need not be square
    for prefix in range(max_prefix + 1):
        spatial = tokens - prefix
        side = isqrt(spatial)
        size = sides.get(spatial, (side, side))
        if size[0] * size[1] == spatial:
            return table[:, :prefix], table[0, prefix:].unflatten(0, size)
    raise RuntimeError(
        f"pos_embed of {tokens} tokens is neither a square nor {grid_size[0]} x {grid_size[1]} "
        f"with up to {max_prefix} prefix tokens"
    )


def convert(state: StateDict, model: Any) -> StateDict:
    """Turn timm's and the official key layouts (ViT, DeiT, DeiT-III, RoPE-ViT) into ours; ours stays as it is.

    Two steps change no output: what a table adds to prefix tokens is folded into these tokens, and a file without
    LayerScale gets scales of one in a model with them. An absolute table whose policy nobody chose takes the resize
    of the code that the file comes from: with antialiasing for timm's, without for the official one.

    Raises:
        RuntimeError: If a table has no shape that the model's tokens could have.
    """
    out: StateDict = {}
    official = "freqs" in state or ("blocks.0.gamma_1" in state and not _rotates(model))
    for key, value in state.items():
        if key in ("freqs", "rope.freqs"):
            key, value = FREQS, value.reshape(*value.shape[:2], model.blocks[0].attn.num_heads, -1)
        elif key.startswith(REBUILT):
            continue
        elif key == "patch_embed.proj.weight" and value.ndim == 4:
            value = fit_patches(value, model.patch_embed.patch_size)
        elif key == "pos_embed" and value.ndim == 3:
            continue
        out[key.replace(".gamma_1", ".ls1.gamma").replace(".gamma_2", ".ls2.gamma")] = value

    table = state.get("pos_embed")
    if table is not None and table.ndim == 3:
        slots, out[TABLE] = split_table(table, model.patch_embed.grid_size, model.num_prefix_tokens)
        for key, first, count in (("cls_token", 0, 1), ("reg_token", 1, model.num_reg_tokens)):
            slot = slots[:, first : first + count]
            if slot.shape[1] and key in out:
                out[key] = out[key] + slot
        adopt_policy(model.pos_encoding.parts, "bicubic" if official else "bicubic_antialias")

    if not any(".ls1." in key for key in out):
        scales = {k: torch.ones_like(p) for k, p in model.named_parameters() if ".ls1." in k or ".ls2." in k}
        out.update({k: v for k, v in scales.items() if k.replace("ls1.gamma", "norm1.weight") in out or ".ls2." in k})
    return cut_down(out, model)


def cut_down(state: StateDict, model: Any) -> StateDict:
    """What a model without classifier, or cut down to its features, takes of the file of a whole one, in our layout.

    Left out are the classifier, blocks after the last one kept, and what follows the blocks where nothing does here:
    norms of a model that has none before or after pooling, attention pooling of one that does not pool.
    """
    if model.num_classes:
        return state
    gone = ["head.", *(f"blocks.{i}." for i in range(len(model.blocks), model.depth))]
    if isinstance(model.norm, nn.Identity) and isinstance(model.fc_norm, nn.Identity):
        gone += ["norm.", "fc_norm."]
    if not model.global_pool:
        gone.append("attn_pool.")
    return {key: value for key, value in state.items() if not key.startswith(tuple(gone))}


def _rotates(model: Any) -> bool:
    return bool(model.pos_encoding.at("rotate"))


def adopt_policy(parts: Iterable[PositionEncoding], policy: str) -> None:
    """Give the absolute tables among ``parts``, and those that they stand over, a policy where nobody chose one."""
    for part in parts:
        table = innermost(part)
        table = getattr(table, "over", table)  # of lape
        if isinstance(table, AbsolutePositionEmbedding) and not table.policy_is_chosen:
            table.policy = policy
            table.mark_as_built()
