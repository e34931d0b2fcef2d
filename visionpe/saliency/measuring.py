"""One row: how well the maps of a saliency model fit the objects, at one size under one policy."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionpe.policy.choose import compare_policies
from visionpe.policy.selection import PolicyChoice
from visionpe.saliency.cutouts import CutOut
from visionpe.saliency.model import FINE_TUNED, MEAN, STD, SaliencyModel
from visionpe.scaling.sizes import Size
from visionpe.utils.resizing import resize_images

THRESHOLD = 0.5
CELLS = 16  # a side, in which a map counts as predictions
PIXELS = 8 * 224 * 224  # of a batch


def normalised(images: Tensor) -> Tensor:
    """``(..., 3, H, W)`` of 0 to 1 as the model wants them."""
    mean, std = (images.new_tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    return (images - mean) / std


def at_size(pictures: Sequence[CutOut], size: Size) -> Iterator[Tensor]:
    """Batches ``(B, 3, height, width)`` of pictures resized to a size, fewer in each where they are large."""
    step = max(1, PIXELS // (size[0] * size[1]))
    for start in range(0, len(pictures), step):
        images = torch.stack([picture.image for picture in pictures[start : start + step]])
        yield normalised(resize_images(images, size).clamp(0, 1))


def intersection_over_union(maps: Tensor, masks: Tensor) -> Tensor:
    """Of each map ``(B, H, W)``, where it is above :data:`THRESHOLD`, and its mask ``(B, H, W)``: ``(B,)``, 0 to 1."""
    found = maps > THRESHOLD
    union = (found | masks).sum((1, 2))
    return torch.where(union > 0, (found & masks).sum((1, 2)) / union.clamp(min=1), 1.0)


@torch.inference_mode()
def measure(
    model: SaliencyModel, pictures: Sequence[CutOut], size: Size, *, device: torch.device, downscale: bool = False
) -> dict[str, Any]:
    """Fill one row.

    Maps are compared with the masks at the size of the pictures, to which they are resized.

    Args:
        model: Its policy is set.
        pictures: To look at.
        size: Height and width to which they are resized, pixels.
        device: Where the model is.
        downscale: Resize them from there to the size of fine-tuning.

    Returns:
        ``n``, ``iou`` and ``mae`` (means, percent), ``ious`` (of every picture, 0 to 1) and ``seconds`` a picture, of
        the model alone, in the fastest batch.
    """
    ious: list[float] = []
    errors: list[float] = []
    fastest, done = float("inf"), 0
    for images in at_size(pictures, size):
        images = resize_images(images, FINE_TUNED) if downscale else images
        start = time.perf_counter()
        maps = model(images.to(device)).float().cpu()  # (B, 1, height, width)
        fastest = min(fastest, (time.perf_counter() - start) / len(maps))
        masks = torch.stack([picture.mask for picture in pictures[done : done + len(maps)]])  # (B, H, W)
        done += len(maps)
        maps = F.interpolate(maps, size=masks.shape[1:], mode="bilinear", antialias=True, align_corners=False)[:, 0]
        ious += intersection_over_union(maps, masks).tolist()
        errors += (maps - masks.float()).abs().mean((1, 2)).tolist()
    return {
        "n": done,
        "iou": 100 * sum(ious) / done,
        "mae": 100 * sum(errors) / done,
        "ious": ious,
        "seconds": fastest,
    }


class CellPredictions(nn.Module):
    """A saliency model as a classifier of cells, two classes each, for what chooses policies by predictions.

    Args:
        model: Gives the maps.
    """

    def __init__(self, model: SaliencyModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` to logits ``(B * CELLS^2, 2)``: nothing, and something that stands out."""
        cells = F.adaptive_avg_pool2d(self.model.logits(images), CELLS).flatten()  # (B * CELLS^2,)
        return torch.stack([torch.zeros_like(cells), cells], dim=1)


def choose(
    model: SaliencyModel, pictures: Sequence[CutOut], size: Size, *, device: torch.device, seed: int
) -> PolicyChoice:
    """The policy for a size, by pictures whose masks are not read: see :func:`visionpe.choose_policy`.

    A map counts as predictions of its cells, which the bootstrap draws picture by picture.
    """
    images = list(at_size(pictures, size))
    classifier = CellPredictions(model).eval()
    return compare_policies(classifier, images, FINE_TUNED, group=CELLS**2, device=device, seed=seed)
