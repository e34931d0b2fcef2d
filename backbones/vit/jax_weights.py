"""Original JAX checkpoints of ViTs (``.npz``), read by timm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from timm.models.vision_transformer import VisionTransformer

from visionpe.utils.errors import InputError, first_line
from visionpe.utils.file_kinds import broken, check_file
from visionpe.utils.weight_files import StateDict


def read_jax(path: str | Path, prefix: str, model: Any, *, img_size: Sequence[int]) -> StateDict:
    """The state dict of timm's ViT that holds such a file, for the input channels and classes of ``model``.

    Args:
        path: The file.
        prefix: Ahead of its keys.
        model: One of ours, which tells the architecture.
        img_size: Height and width for which timm resizes the position table, pixels.

    Raises:
        visionpe.utils.errors.InputError: If the file is none of these, or cut off.
    """
    check_file(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = arrays.files
    except (AttributeError, TypeError, ValueError, BadZipFile):  # a single array; no file of numpy
        raise broken(path, "no archive of numpy's (.npz)") from None
    class_token = any(name.rsplit("/", 1)[-1] == "cls" for name in names)
    embed = model.patch_embed
    reader = VisionTransformer(
        img_size=tuple(img_size),
        patch_size=embed.patch_size,
        in_chans=embed.proj.in_channels,
        embed_dim=model.embed_dim,
        depth=len(model.blocks),
        num_heads=model.num_heads,
        num_classes=model.num_classes,
        mlp_ratio=model.blocks[0].mlp.fc1.out_features / model.embed_dim,
        class_token=class_token,
        global_pool="token" if class_token else "avg",
        fc_norm=False,  # these files have one norm, after the blocks
    )
    try:
        reader.load_pretrained(str(path), prefix)
    except (ValueError, KeyError, BadZipFile) as error:
        raise InputError(f"checkpoint {str(path)!r} holds no such ViT of JAX ({first_line(error, 80)})") from None
    return reader.state_dict()
