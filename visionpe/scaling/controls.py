"""What a user can do without any policy: bring the image to the trained size, whole or in tiles.

*downscale*: the image is resized to the trained size.
*tiling*: tiles of the trained size cover the image, the model looks at each, and their logits are averaged.

Both run the model as built, at the size it was trained at.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from visionpe.scaling.sizes import Size
from visionpe.utils.resizing import resize_images


def tile_starts(length: int, tile: int) -> list[int]:
    """Where the tiles of one axis begin: as few as cover it, evenly spread, pixels.

    Args:
        length: Of the axis, pixels, at least ``tile``.
        tile: Of a tile, pixels.
    """
    count = -(-length // tile)
    return [round(i * (length - tile) / max(count - 1, 1)) for i in range(count)]


def tile_grid(size: Size, tile: Size) -> Size:
    """Rows and columns of tiles that cover an image.

    Args:
        size: Height and width of the image, pixels.
        tile: Height and width of a tile, pixels.
    """
    return max(1, -(-size[0] // tile[0])), max(1, -(-size[1] // tile[1]))


def tiles(images: Tensor, size: Size) -> Tensor:
    """Cut images into tiles.

    An axis longer than a tile is covered by as few tiles as possible, evenly spread, so that they overlap where they
    do not divide it; a shorter one is resized to the tile.

    Args:
        images: ``(B, C, h, w)``, floating point.
        size: Height and width of a tile, pixels.

    Returns:
        ``(B, T, C, height, width)``, tiles in row-major order.
    """
    images = resize_images(images, (max(images.shape[-2], size[0]), max(images.shape[-1], size[1])))
    rows, columns = (tile_starts(length, tile) for length, tile in zip(images.shape[-2:], size))
    cut = [images[..., y : y + size[0], x : x + size[1]] for y in rows for x in columns]
    return torch.stack(cut, dim=1)  # (B, T, C, height, width)


class TiledModel(nn.Module):
    """A model on tiles: it sees them in batches as large as that of the images, and their logits are averaged.

    Args:
        model: Takes ``(B, C, height, width)``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, C, height, width)`` to ``(B, classes)``."""
        logits = torch.cat([self.model(part) for part in x.flatten(0, 1).split(x.shape[0])])
        return logits.unflatten(0, x.shape[:2]).mean(1)
