"""Published checkpoints of windowed ViTs: from detectron2's, SAM's, MAE's and timm's key layouts to ours."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from visionpe.backbones.shared.loading import fit_patches
from visionpe.backbones.shared.position_tables import file_slots, table_shape
from visionpe.backbones.shared.window_tables import tables_of, window_of
from visionpe.backbones.vit.tables import patch_grid, reg_tokens
from visionpe.backbones.vit.weights import PUBLISHED_FREQS, REBUILT
from visionpe.utils.weight_files import StateDict

# Of what a file holds, only the backbone is read: what stands beside this.
STEM = "patch_embed.proj.weight"
# Of MAE's pretraining, and prefix tokens, which a map has no place for.
DROPPED = ("cls_token", "reg_token", "mask_token", "decoder_")
RENAMED = {
    ".mlp.lin": ".mlp.fc",
    ".gamma_1": ".ls1.gamma",
    ".gamma_2": ".ls2.gamma",
    "head.fc.": "head.",
    "neck.weight": "norm.weight",  # timm's name of the final norm
    "neck.bias": "norm.bias",
}
TABLE = "pos_encoding.map.ape.table"
OWN = ("pos_encoding.map.", "pos_encoding.inside.")
AXES = {"rel_pos_h": "height_table", "rel_pos_w": "width_table"}
# What files of backbones lack starts as initialised.
ADDED = ("pos_encoding.", "neck.", "fc_norm.", "norm.", "head.")


def convert(state: StateDict, model: Any) -> StateDict:
    """Turn the key layouts of detectron2, SAM, MAE, RoPE-ViT and timm's ViT and samvit into ours; ours stays as it is.

    Of a whole detector or segmenter the backbone is taken. Prefix tokens are dropped, and with them a classifier that
    reads them. What a file lacks (positions, convolutions after the blocks, neck, classifier) starts as initialised;
    a neck, final norm or classifier that the model lacks is dropped, unless a classifier would go without its norm.

    The absolute table keeps the size of the file's, from which it is resized on the fly. Files with relative tables
    come from models whose windows are padded with zero tokens: where nobody chose the padding, the model does so too.

    Raises:
        RuntimeError: If a table has no shape that the model's tokens could have, or the file has other global blocks.
    """
    prefixes = [key.removesuffix(STEM) for key in state if key.endswith(STEM)]
    prefix = prefixes[0] if len(prefixes) == 1 else ""
    state = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    if any(key.startswith(OWN) for key in state):
        _take_size(model, state.get(TABLE))
        return _without_rest(state, model)

    out: StateDict = {}
    relative: dict[str, dict[int, Tensor]] = {name: {} for name in AXES}
    for key, value in state.items():
        for theirs, ours in RENAMED.items():
            key = key.replace(theirs, ours)
        if match := re.fullmatch(r"blocks\.(\d+)\.attn\.(rel_pos_[hw])", key):
            relative[match[2]][int(match[1])] = value
        elif key == STEM and value.ndim == 4:
            out[key] = fit_patches(value, model.patch_embed.patch_size)
        elif key == "pos_embed":
            out[TABLE] = _table(value, state, model)
        elif key in PUBLISHED_FREQS:
            freqs = value.reshape(*value.shape[:2], model.num_heads, -1)  # (axes, depth, heads, pairs)
            out.update(_of_plain_vit("rope_mixed.freqs", freqs, model))
        elif key.startswith(REBUILT):
            continue
        elif key.startswith("pos_encoding."):
            out.update(_of_plain_vit(key.split(".", 1)[1], value, model))
        elif not key.startswith(DROPPED):
            out[key] = value
    out.update(_relative(relative, model))
    _take_size(model, out.get(TABLE))
    if relative["rel_pos_h"] and not model.padding_is_chosen:
        model.padding = "tokens"
    return _completed(out, model, reads_token="cls_token" in state and "fc_norm.weight" not in state)


def _table(table: Tensor, state: StateDict, model: Any) -> Tensor:
    """``(1, N, dim)`` with or without slots of prefix tokens, or ``(1, height, width, dim)``, to the map.

    Raises:
        RuntimeError: If it has no shape that the model's tokens could have, or several alike.
    """
    if table.ndim == 4:
        return table[0]
    embed, in_file = model.patch_embed, patch_grid(state, model.patch_embed.patch_size)
    tokens_told = any(key.startswith(("cls_token", "reg_token")) for key in state)
    # detectron2 keeps the slot of a class token that it drops.
    slots = file_slots(int("cls_token" in state), reg_tokens(state)) if tokens_told else (0, 1)
    first, own = [in_file(model.pretrain_img_size)], [in_file(embed.img_size), embed.grid_size]
    cfg = model.pretrained_cfg.get("input_size")
    prefix, size = table_shape(
        table.shape[1],
        slots,
        [*([first, own] if model.pretrain_is_chosen else [first + own]), [] if cfg is None else [in_file(cfg[-2:])]],
        own=first[0],
        keyword="pretrain_img_size=(height, width), pixels",
        sure=slots[:1] if tokens_told else slots,
    )
    return table[0, prefix:].unflatten(0, size)


def _take_size(model: Any, table: Tensor | None) -> None:
    """Give the absolute table of the model the size of the file's, so that nothing is lost in resizing."""
    if table is None or table.ndim != 3:
        return
    for part in model.pos_encoding.map.parts:
        if part.name == "ape" and table.shape[:2] != part.table.shape[:2]:
            part.set_input_grid(table.shape[:2])
            part.grid_size = tuple(table.shape[:2])


def _relative(tables: Mapping[str, dict[int, Tensor]], model: Any) -> StateDict:
    """The relative tables of the blocks, ``(2 n - 1, head_dim)`` each, stacked by the kind of block."""
    out: StateDict = {}
    for theirs, ours in AXES.items():
        kinds: dict[str, list[Tensor]] = {}
        for block, table in sorted(tables[theirs].items()):
            kinds.setdefault(model.places.get(block, ("whole", 0))[0], []).append(table)
        for kind, rows in kinds.items():
            lengths = sorted({len(table) for table in rows})
            if len(lengths) > 1:
                raise RuntimeError(
                    f"{theirs} of the {'global' if kind == 'whole' else kind} blocks has lengths {lengths}: "
                    f"the file's global blocks are not global_blocks={model.global_blocks}"
                )
            out[f"pos_encoding.inside.{kind}.decomposed.{ours}"] = torch.stack(rows)
    return out


def _of_plain_vit(key: str, value: Tensor, model: Any) -> StateDict:
    """What a ViT of ours holds for all its blocks: for the map, or shared out among the kinds of blocks."""
    own = model.state_dict()
    if f"pos_encoding.map.{key}" in own:
        return {f"pos_encoding.map.{key}": value}
    out: StateDict = {}
    for kind in model.pos_encoding.inside:
        name = f"pos_encoding.inside.{kind}.{key}"
        if name in own:
            blocks = [i for i, (its, _) in model.places.items() if its == kind]
            count = len(model.places)
            axes = [a for a, n in enumerate(value.shape) if n == count and own[name].shape[a] == len(blocks)]
            out[name] = value.index_select(axes[0], torch.tensor(blocks, device=value.device)) if axes else value
    return out or {f"pos_encoding.{key}": value}


def _without_rest(out: StateDict, model: Any) -> StateDict:
    """The file without classifier and blocks that the model lacks, and without neck and norms if nothing reads them."""
    own = model.state_dict()
    gone = [f"blocks.{i}." for i in range(len(model.blocks), model.depth)]
    if not any(key.startswith("head.") for key in own):
        gone.append("head.")
    if "head." in gone or not any(key.startswith("head.") for key in out):
        gone += [part for part in ("neck.", "norm.", "fc_norm.") if not any(key.startswith(part) for key in own)]
    gone += model.cut_keys
    return {key: value for key, value in out.items() if not key.startswith(tuple(gone))}


def _completed(out: StateDict, model: Any, *, reads_token: bool) -> StateDict:
    """The file with what it lacks and without what the model lacks."""
    own = model.state_dict()
    if reads_token:
        out = {key: value for key, value in out.items() if not key.startswith("head.")}
    out = _without_rest(out, model)
    classifies = any(key.startswith("head.") for key in out)
    if STEM not in out:  # no ViT: the refusal should name what is missing
        return out
    if not classifies and any(key.startswith("head.") for key in own):
        warnings.warn("the checkpoint has no classifier of a map: the model's starts as initialised", stacklevel=2)
    scaled = any(".ls1." in key for key in out)
    for key, value in own.items():
        if key.startswith(ADDED) or ".residual." in key:
            out.setdefault(key, value)
        elif not scaled and (".ls1." in key or ".ls2." in key):
            out.setdefault(key, torch.ones_like(value))
    return out


def check_windows(state: StateDict, model: Any) -> None:
    """Refuse tables of other windows, in our layout: resized ones would say something else of the same places.

    Raises:
        RuntimeError: If there are any; names ``window_size``.
    """
    own, prefix = model.state_dict(), "pos_encoding.inside.window."
    for part in model.pos_encoding.inside["window"].parts if "window" in model.pos_encoding.inside else ():
        mine, given = (tables_of(part, f"{prefix}{part.name}.", each) for each in (own, state))
        window = window_of(part, given)
        if window is not None and window != window_of(part, mine):
            tables = ", ".join(f"{prefix}{part.name}.{key} {shape}" for key, shape in given.items())
            raise RuntimeError(
                f"window_size={model.window_size} is not that of the file, which has {tables}; "
                f"allowed: window_size={window}, with the file's global_blocks"
            )
