"""Images of several sizes, as lists and as patches of NaFlex, read into batches of one size each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Batching = Literal["auto", "pad", "pack"]


@dataclass(frozen=True)
class Batch:
    """Images of one size.

    Args:
        images: ``(B, C, height, width)``.
        samples: Their places in what was given.
        kept: Where some patches are missing, the row-major indices of those that are there, ``(B, N)``.
    """

    images: Tensor
    samples: tuple[int, ...]
    kept: Tensor | None = None


def is_mixed(x: Any) -> bool:
    """Whether this is something else than one tensor of images."""
    return isinstance(x, (list, tuple, Mapping))


def read_mixed(x: Any, patch_coord: Any, patch_valid: Any, embed: Any) -> list[Batch]:
    """Images, or patches as timm's NaFlex loader gives them, by size.

    Args:
        x: A list of ``(C, height, width)``; a dict of ``patches``, ``patch_coord`` and ``patch_valid``; or the patches,
            ``(B, N, height * width * C)`` of a patch, or ``(B, N, height, width, C)``.
        patch_coord: Of patches, their row and column, ``(B, N, 2)``.
        patch_valid: Of patches, which are no padding, ``(B, N)``; None for all.
        embed: The patch embedding, whose patches these are.

    Raises:
        TypeError: If it is none of these, or the embedding is none of single patches.
        ValueError: If there is no image, or shapes do not fit.
    """
    if isinstance(x, Mapping):
        missing = {"patches", "patch_coord"} - set(x)
        if missing:
            raise ValueError(f"images: a dict without {sorted(missing)}; allowed: patches, patch_coord, patch_valid")
        x, patch_coord, patch_valid = x["patches"], x["patch_coord"], x.get("patch_valid")
    if patch_coord is not None:
        projection = getattr(embed, "proj", None)
        if not isinstance(projection, nn.Conv2d) or hasattr(embed, "backbone"):
            raise TypeError(f"patches: {type(embed).__name__} sees more than single patches; allowed: lists of images")
        return _from_patches(x, patch_coord, patch_valid, embed.patch_size, projection.in_channels)
    return _by_size(x)


def _by_size(images: Sequence[Any]) -> list[Batch]:
    allowed = "tensors (C, height, width), alike in channels and dtype, one or more"
    if not len(images):
        raise ValueError(f"images: an empty list; allowed: {allowed}")
    sizes: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        if not isinstance(image, Tensor):
            raise TypeError(f"images[{index}]: {type(image).__name__}; allowed: {allowed}")
        if image.ndim != 3 or image.shape[0] != images[0].shape[0] or image.dtype != images[0].dtype:
            raise ValueError(f"images[{index}]: shape {tuple(image.shape)} of {image.dtype}; allowed: {allowed}")
        sizes.setdefault(tuple(image.shape[1:]), []).append(index)
    return [Batch(torch.stack([images[i] for i in its]), tuple(its)) for its in sizes.values()]


def _from_patches(patches: Any, coord: Any, valid: Any, patch_size: tuple[int, int], in_chans: int) -> list[Batch]:
    """Images again, since a patch embedding does the same to them; with a note of what is missing."""
    (down, right), numbers = patch_size, patch_size[0] * patch_size[1] * in_chans
    if isinstance(patches, Tensor) and patches.ndim == 5:
        patches = patches.flatten(2)
    if not isinstance(patches, Tensor) or patches.ndim != 3 or patches.shape[2] != numbers:
        what = tuple(patches.shape) if isinstance(patches, Tensor) else type(patches).__name__
        raise ValueError(
            f"patches: {what}; allowed: (B, N, {numbers}) or (B, N, {down}, {right}, {in_chans}), as patches of this "
            "model are; a loader with patch_size_choices gives others"
        )
    batch, length = patches.shape[:2]
    if not isinstance(coord, Tensor) or tuple(coord.shape) != (batch, length, 2):
        what = tuple(coord.shape) if isinstance(coord, Tensor) else type(coord).__name__
        raise ValueError(f"patch_coord: {what}; allowed: ({batch}, {length}, 2), rows and columns")
    if valid is not None and (not isinstance(valid, Tensor) or tuple(valid.shape) != (batch, length)):
        what = tuple(valid.shape) if isinstance(valid, Tensor) else type(valid).__name__
        raise ValueError(f"patch_valid: {what}; allowed: ({batch}, {length}), True for what is no padding")
    valid = torch.ones(batch, length, dtype=torch.bool, device=patches.device) if valid is None else valid.bool()
    coord = coord.long().masked_fill(~valid[..., None], -1)
    if not valid.any(dim=1).all():
        raise ValueError("patch_valid: an image without a patch; allowed: one or more in each")
    if (coord[valid] < 0).any():
        raise ValueError("patch_coord: a patch stands at a negative row or column; allowed: 0 and more")
    sizes = (coord.amax(1) + 1).tolist()
    counts = valid.sum(1).tolist()
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, (size, count) in enumerate(zip(sizes, counts)):
        groups.setdefault((*size, count), []).append(index)
    return [_fold(patches, coord, valid, group, tuple(its), patch_size) for group, its in groups.items()]


def _fold(
    patches: Tensor,
    coord: Tensor,
    valid: Tensor,
    group: tuple[int, ...],
    samples: tuple[int, ...],
    patch_size: tuple[int, int],
) -> Batch:
    """Images of ``group``: rows and columns of patches, and how many of these are there."""
    rows, columns, count = group
    index = torch.tensor(samples, device=patches.device)
    own, places, there = patches[index], coord[index], valid[index]
    flat = (places[..., 0] * columns + places[..., 1])[there].view(len(samples), count)
    ranks = flat.sort(dim=1).values
    if (ranks[:, 1:] == ranks[:, :-1]).any():
        raise ValueError("patch_coord: two patches of an image stand at one place; allowed: one at each")
    own = own[there].view(len(samples), count, -1)
    whole = own.new_zeros(len(samples), rows * columns, own.shape[-1]).scatter(
        1, flat[..., None].expand(-1, -1, own.shape[-1]), own
    )
    images = whole.view(len(samples), rows, columns, *patch_size, -1).permute(0, 5, 1, 3, 2, 4)
    images = images.reshape(len(samples), -1, rows * patch_size[0], columns * patch_size[1])
    every = torch.arange(rows * columns, device=flat.device)
    return Batch(images, samples, None if count == len(every) and bool((flat == every).all()) else flat)
