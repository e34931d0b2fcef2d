"""Patch embeddings at another size of the patch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from visionpe.policy.functions.matrices import multiply, per_size


@per_size
def patch_matrix(before: int, now: int) -> Tensor:
    """Along one side, a kernel of ``before`` pixels to one of ``now``: ``(now, before)``; see :func:`resize_patch`."""
    one = torch.eye(before, dtype=torch.float64)[:, None, None].expand(-1, -1, 2, -1)
    resize = F.interpolate(one, size=(2, now), mode="bilinear", antialias=True)[:, 0, 0].T  # (now, before)
    return torch.linalg.pinv(resize).T


def resize_patch(weight: Tensor, size: Sequence[int]) -> Tensor:
    """A kernel for patches of another size that finds in a resized patch what the given one finds in the patch.

    Source: FlexiViT, arXiv 2212.08013, section 3.4 (PI-resize): of patches x resized by B, ``<B x, w'> = <x, w>``
    is solved, or nearly, by ``w' = pinv(B).T w``. B is bilinear with antialiasing, so it is a product of one matrix a
    side, and so is its pseudo-inverse.

    Args:
        weight: ``(dim, channels, height, width)``.
        size: New height and width, pixels.

    Returns:
        ``(dim, channels, *size)``, computed in at least float32; the kernel itself at its own size.
    """
    sides = [(axis, n) for axis, n in zip((2, 3), size) if weight.shape[axis] != n]
    return multiply(weight, {axis: patch_matrix(weight.shape[axis], n, like=weight) for axis, n in sides})
