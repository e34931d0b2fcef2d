"""The table of absolute positions in a published ViT: its shape, its slots of prefix tokens, its resize."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from timm.models import get_arch_pretrained_cfgs
from torch import Tensor

from visionpe.backbones.shared.position_tables import Size, file_slots, table_shape
from visionpe.base import PositionEncoding
from visionpe.encodings.absolute.ape import AbsolutePositionEmbedding
from visionpe.encodings.wrappers.base import innermost
from visionpe.policy.functions import sample_table
from visionpe.utils.weight_files import StateDict

TABLE = "pos_encoding.ape.table"

SETTLES = "trained_size=(height, width), pixels, in create_model"


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
    # ViTs with LayerScale (DeiT-III, DINOv2) have a square, with slots or without.
    sure = slots if any(".ls1." in key for key in state) else slots[:1]
    prefix, size = table_shape(tokens, (0,) if official else slots, sure=(0,) if official else sure, **options)
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


def adopt_policy(parts: Iterable[PositionEncoding], policy: str) -> None:
    """Give the absolute tables among ``parts``, and those that they stand over, a policy where nobody chose one."""
    for part in parts:
        table = innermost(part)
        table = getattr(table, "over", table)  # of lape
        if isinstance(table, AbsolutePositionEmbedding) and not table.policy_is_chosen:
            table.policy = policy
            table.mark_as_built()


def sample_rows(table: Tensor, cls_token: Tensor, model: Any) -> StateDict:
    """The table of ComRoPE's code, which is read at the row of a patch alone, and the class token with its share.

    Args:
        table: ``(height, width, dim)``.
        cls_token: ``(1, 1, dim)``, which stands in the middle.
        model: Its table takes the shape of the file's, and is read in that way from now on.

    Returns:
        Both under our names.
    """
    for part in model.pos_encoding.parts:
        own = innermost(part)
        if isinstance(own, AbsolutePositionEmbedding):
            own.sample_by_rows()
            own.adopted["sampling"] = "rows"
    middle = torch.tensor([(n - 1) / 2 for n in table.shape[:2]], device=table.device)
    return {TABLE: table, "cls_token": cls_token + sample_table(table, middle).to(table.dtype)}
