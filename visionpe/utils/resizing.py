"""Images at another size."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def resize_images(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize by antialiased bicubic interpolation; the identity at the size that they have.

    Args:
        images: ``(B, C, h, w)``, floating point.
        size: Height and width, pixels.

    Returns:
        ``(B, C, height, width)``.
    """
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    return F.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False)


def native_size(image: tuple[int, int], budget: tuple[int, int], patch: tuple[int, int]) -> tuple[int, int]:
    """Height and width of an image in its own aspect ratio, multiples of the patch, within the tokens of a budget.

    Args:
        image: Its own height and width, pixels.
        budget: Height and width whose patches are the most that are allowed, pixels.
        patch: Height and width of a patch, pixels.
    """
    from timm.data.naflex_transforms import get_image_size_for_seq  # of all here, this alone needs timm

    most = max(1, budget[0] // patch[0]) * max(1, budget[1] // patch[1])
    return get_image_size_for_seq(image, patch, max_seq_len=most)[1]
