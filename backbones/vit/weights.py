"""Published ViT checkpoints: from timm's and the official key layouts to ours."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import Any

import torch
from timm.models import get_arch_pretrained_cfgs
from torch import Tensor, nn

from visionpe.backbones.shared.loading import fit_patches
from visionpe.backbones.shared.position_tables import Size, file_slots, table_shape
from visionpe.base import PositionEncoding
from visionpe.encodings.absolute.ape import AbsolutePositionEmbedding
from visionpe.encodings.wrappers.base import innermost
from visionpe.utils.weight_files import StateDict

TABLE = "pos_encoding.ape.table"
FREQS = "pos_encoding.rope_mixed.freqs"
# Under these names authors' training code saves weights; timm's has state_dict and state_dict_ema, or none.
AUTHORS = ("model", "model_ema")
# Coordinates and fixed frequencies that are computed anew at every size.
REBUILT = ("freqs_t_x", "freqs_t_y", "rope.")
SETTLES = "trained_size=(height, width), pixels, in create_model"
_logger = logging.getLogger(__name__)


def split_table(table: Tensor, state: StateDict, model: Any, *, official: bool) -> tuple[Tensor, Tensor]:
    """``(1, N, dim)`` into the prefix slots ``(1, P, dim)`` and the table ``(height, width, dim)``.

    Its shape is that of the model's map, of the size of training, or of the published weights; then a square.

    Args:
        table: As in the file.
        state: The file, which tells its prefix tokens and its patch.
        model: The model, which tells sizes.
        official: The official code of DeiT-III and RoPE-ViT, whose tables have no prefix slots.

    Raises:
        RuntimeError: If nothing fits, or several shapes do alike.
    """
    slots = file_slots(int("cls_token" in state), reg_tokens(state))
    embed, tokens = model.patch_embed, table.shape[1]
    in_file = patch_grid(state, embed.patch_size)
    trained = [in_file(model.trained_img_size), _over(model.trained_img_size, model.trained_patch_size)]
    own = [in_file(embed.img_size), embed.grid_size, *trained]
    cfg = model.pretrained_cfg.get("input_size")
    published = [] if cfg is None else [in_file(cfg[-2:])]
    if model.cfg_is_stated:  # the user named the weights: as sure as the model's own size
        own += published
    groups = [*([trained] if model.trained_is_stated else []), own, published, [in_file(s) for s in _sizes(model)]]
    options: dict[str, Any] = {"known": groups, "own": embed.grid_size, "keyword": SETTLES}
    prefix, size = table_shape(tokens, (0,) if official else slots, sure=(0,) if official else slots[:1], **options)
    return table[:, :prefix], table[0, prefix:].unflatten(0, size)


def reg_tokens(state: StateDict) -> int:
    """How many register tokens a file holds."""
    return state["reg_token"].shape[1] if "reg_token" in state else 0


def _over(img_size: Sequence[int], patch_size: Sequence[int]) -> Size:
    return img_size[0] // patch_size[0], img_size[1] // patch_size[1]


def patch_grid(state: StateDict, patch_size: Sequence[int]) -> Callable[[Sequence[int]], Size]:
    """From a size in pixels to the tokens of the code that the file comes from, by the patch of the file."""
    weight = state.get("patch_embed.proj.weight")
    return partial(_over, patch_size=patch_size if weight is None or weight.ndim != 4 else weight.shape[-2:])


def _sizes(model: Any) -> list[Sequence[int]]:
    """Sizes of all published weights of a name, pixels."""
    cfgs = get_arch_pretrained_cfgs(model.pretrained_cfg.get("architecture") or "")
    return [cfg.input_size[-2:] for cfg in cfgs.values()]


def convert(state: StateDict, model: Any) -> StateDict:
    """Turn timm's and the official key layouts (ViT, DeiT, DeiT-III, RoPE-ViT) into ours; ours stays as it is.

    Two steps change no output: what a table adds to prefix tokens is folded into these tokens, and a file without
    LayerScale gets scales of one in a model with them. An absolute table whose policy nobody chose takes the resize
    of the code that the file comes from: with antialiasing for timm's, without for the official one.

    Raises:
        RuntimeError: If a table has no shape that the model's tokens could have.
    """
    out: StateDict = {}
    official = is_official(state, model)
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
        slots, out[TABLE] = split_table(table, state, model, official=official)
        first = int("cls_token" in state)
        for key, slot in (("cls_token", slots[:, :first]), ("reg_token", slots[:, first:])):
            if slot.shape[1]:
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


def is_official(state: StateDict, model: Any) -> bool:
    """Whether a file comes from the code of DeiT-III or RoPE-ViT; else from timm's.

    Keys tell, but for fixed rotary frequencies with a table: of these timm's keys are the same, and the wrapper tells.
    """
    if "freqs" in state or "blocks.0.gamma_1" not in state or not model.pos_encoding.at("rotate"):
        return "freqs" in state or "blocks.0.gamma_1" in state
    wrapper = getattr(state, "wrapper", None)
    if wrapper is None and "pos_embed" in state:
        _tell_once(
            "The weights have keys that RoPE-ViT's code and timm's share; nothing around them tells whose they are. "
            "At other sizes pos_embed is resized as in timm, with antialiasing; of the authors' weights load the file "
            "whole ({'model': ...}), or set_policy(model, 'bicubic')."
        )
    return wrapper in AUTHORS


@cache
def _tell_once(message: str) -> None:
    _logger.warning(message)


def adopt_policy(parts: Iterable[PositionEncoding], policy: str) -> None:
    """Give the absolute tables among ``parts``, and those that they stand over, a policy where nobody chose one."""
    for part in parts:
        table = innermost(part)
        table = getattr(table, "over", table)  # of lape
        if isinstance(table, AbsolutePositionEmbedding) and not table.policy_is_chosen:
            table.policy = policy
            table.mark_as_built()
