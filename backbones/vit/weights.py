"""Published ViT checkpoints: from timm's and the official key layouts to ours."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import torch
from torch import nn

from visionpe.backbones.shared.loading import fit_patches
from visionpe.backbones.vit.published import in_layout_of_deit
from visionpe.backbones.vit.tables import TABLE, adopt_policy, split_table
from visionpe.utils.weight_files import StateDict, Weights

FREQS = "pos_encoding.rope_mixed.freqs"
PUBLISHED_FREQS = ("freqs", "rope.freqs")  # of all blocks, by RoPE-ViT's authors and in timm
# Coordinates and fixed frequencies that are computed anew at every size.
REBUILT = ("freqs_t_x", "freqs_t_y", "rope.")
# In keys of timm alone.
TIMM_MARKS = (".ls1.gamma", "rope.freqs")
_logger = logging.getLogger(__name__)


def convert(state: StateDict, model: Any) -> StateDict:
    """Turn timm's and the official key layouts into ours; ours stays as it is.

    They are those of ViT, DeiT, DeiT-III, RoPE-ViT, and of :mod:`visionpe.backbones.vit.published`.

    Two steps change no output: what a table adds to prefix tokens is folded into these tokens, and a file without
    LayerScale gets scales of one in a model with them. An absolute table whose policy nobody chose takes the resize
    of the code that the file comes from: with antialiasing for timm's, without for that of authors.

    Raises:
        RuntimeError: If a table has no shape that the model's tokens could have.
    """
    out: StateDict = {}
    source = in_layout_of_deit(state if isinstance(state, Weights) else Weights(state), model)
    slotless, by_authors = _origin(source, model)
    for key, value in source.items():
        if key in PUBLISHED_FREQS:
            key, value = FREQS, value.reshape(*value.shape[:2], model.blocks[0].attn.num_heads, -1)
        elif key.startswith(REBUILT):
            continue
        elif key == "patch_embed.proj.weight" and value.ndim == 4:
            value = fit_patches(value, model.patch_embed.patch_size)
        elif key == "pos_embed" and value.ndim == 3:
            continue
        out[key.replace(".gamma_1", ".ls1.gamma").replace(".gamma_2", ".ls2.gamma")] = value

    table = source.get("pos_embed")
    if table is not None and table.ndim == 3:
        slots, out[TABLE] = split_table(table, source, model, official=slotless)
        first = int("cls_token" in source)
        for key, slot in (("cls_token", slots[:, :first]), ("reg_token", slots[:, first:])):
            if slot.shape[1]:
                out[key] = out[key] + slot
        adopt_policy(model.pos_encoding.parts, "bicubic" if by_authors else "bicubic_antialias")

    if not any(".ls1." in key for key in out):
        scales = {k: torch.ones_like(p) for k, p in model.named_parameters() if ".ls1." in k or ".ls2." in k}
        out.update({k: v for k, v in scales.items() if k.replace("ls1.gamma", "norm1.weight") in out or ".ls2." in k})
    return source.derived(cut_down(out, model))


def cut_down(state: StateDict, model: Any) -> StateDict:
    """What a model without classifier, or cut down to its features, takes of the file of a whole one, in our layout.

    Left out are positions of blocks that were cut off; and without a classifier the file's, blocks after the last one
    kept, and what follows the blocks where nothing does here: norms of a model that has none before or after pooling,
    attention pooling of one that does not pool.
    """
    state = {key: value for key, value in state.items() if key not in model.cut_keys}
    if model.num_classes:
        return state
    gone = ["head.", *(f"blocks.{i}." for i in range(len(model.blocks), model.depth))]
    if isinstance(model.norm, nn.Identity) and isinstance(model.fc_norm, nn.Identity):
        gone += ["norm.", "fc_norm."]
    if not model.global_pool:
        gone.append("attn_pool.")
    return {key: value for key, value in state.items() if not key.startswith(tuple(gone))}


def _origin(state: Weights, model: Any) -> tuple[bool, bool]:
    """Whether a table has no slots of prefix tokens, as in DeiT-III and RoPE-ViT, and whether authors' code resizes it.

    Keys tell, but for DeiT and for fixed rotary frequencies with a table: of these timm's are the same, and the wrapper
    tells.
    """
    if any(mark in key for key in state for mark in TIMM_MARKS):
        return False, False
    if "freqs" in state or ("blocks.0.gamma_1" in state and not model.pos_encoding.at("rotate")):
        return True, True
    if "blocks.0.gamma_1" not in state:
        return False, state.by_authors
    if state.wrapper is None and "pos_embed" in state:
        _tell_once(
            "The weights have keys that RoPE-ViT's code and timm's share; nothing around them tells whose they are. "
            "At other sizes pos_embed is resized as in timm, with antialiasing; of the authors' weights load the file "
            "whole ({'model': ...}), or set_policy(model, 'bicubic')."
        )
    return state.by_authors, state.by_authors


@cache
def _tell_once(message: str) -> None:
    _logger.warning(message)
