"""One picture through one model at several sizes and under several policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from visionpe import set_policy
from visionpe.scaling.options import DEFAULT
from visionpe.scaling.sizes import Size
from visionpe.utils.errors import first_line
from visionpe.viewing.attention import AttentionLayer, attention_layers
from visionpe.viewing.features import feature_maps


@dataclass(frozen=True)
class Normalisation:
    """What a model wants to be given: ``(pixels - mean) / std``, per channel, pixels 0 to 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pictures: Tensor) -> Tensor:
        """``(B, channels, height, width)`` of 0 to 1."""
        shape = (1, -1, 1, 1)
        return (pictures - pictures.new_tensor(self.mean).view(shape)) / pictures.new_tensor(self.std).view(shape)


@dataclass
class View:
    """What one size and one policy make of the picture.

    Attributes:
        size: Height and width, pixels.
        policy: As it was set.
        picture: As the model got it, ``(height, width, 3)`` of 0 to 1.
        layers: Numbers of the layers of ``maps``.
        maps: Features after each, after the final norm where it fits, ``(1, channels, rows, columns)``.
        attention: Every attention of the pass; empty where there are none to be seen, for the reason in ``unseen``.
        unseen: Why.
    """

    size: Size
    policy: str
    picture: np.ndarray
    layers: list[int]
    maps: list[Tensor]
    attention: list[AttentionLayer]
    unseen: str = ""

    @property
    def name(self) -> str:
        return f"{self.size[0]}x{self.size[1]} {self.policy}"

    @property
    def whole(self) -> list[int]:
        """Numbers of the attentions that see the whole map, each patch as a query."""
        return [i for i, a in enumerate(self.attention) if a.windows == 1 and a.grid.dense and a.grid.queries is None]


def look(model: nn.Module, picture: Tensor, normalisation: Normalisation, policy: str, layers: Sequence[int]) -> View:
    """Run the model on the picture.

    Args:
        model: In evaluation mode; its policy is changed.
        picture: ``(1, channels, height, width)`` of 0 to 1, at the size to look at, where the model is.
        normalisation: Of the model.
        policy: A resolution policy of the model.
        layers: Of features; empty for all.

    Raises:
        ValueError: If the policy does not apply, or there are no such layers.
    """
    set_policy(model, DEFAULT)
    if policy != DEFAULT:
        set_policy(model, policy)
    images = normalisation(picture)
    maps = feature_maps(model, images, list(layers) or None)
    attention, unseen = list[AttentionLayer](), ""
    try:
        attention = attention_layers(model, images)
    except ValueError as error:
        unseen = first_line(error)
    shown = picture[0].expand(3, -1, -1) if picture.shape[1] == 1 else picture[0, :3]
    size = picture.shape[2], picture.shape[3]
    numbers = list(layers) or list(range(len(maps)))
    return View(size, policy, shown.movedim(0, -1).cpu().numpy(), numbers, maps, attention, unseen)


def place(token: tuple[float, float], size: tuple[int, ...]) -> tuple[int, int]:
    """The patch at shares of the height and width."""
    row, column = (min(int(share * n), n - 1) for share, n in zip(token, size))
    return row, column


@torch.no_grad()
def cells(layer: AttentionLayer, queries: int = 8, keys: int = 16) -> tuple[np.ndarray, Size, Size]:
    """Attention in coarse cells, small enough to keep for every layer and head.

    Args:
        layer: Of the whole map.
        queries, keys: Cells a side, at most.

    Returns:
        ``(heads, 1 + cells of queries, cells of keys)``: the mean weights that the first prefix token (zeros, where
        there is none) and the patches in the middle of each cell give to the patches of each cell, as shares of the
        largest of the row, 0 to 255; and both sizes.
    """
    size, prefix = layer.grid.size, layer.grid.prefix
    asked = min(size[0], queries), min(size[1], queries)
    given = min(size[0], keys), min(size[1], keys)
    rows = [torch.zeros(layer.heads, *given)]
    if prefix:
        rows = [_coarse(layer.of(0)[0], given)]
    for row in range(asked[0]):
        for column in range(asked[1]):
            at = (int((row + 0.5) * size[0] / asked[0]), int((column + 0.5) * size[1] / asked[1]))
            rows.append(_coarse(layer.of(at)[0], given))
    both = torch.stack(rows, 1).flatten(2)  # (heads, 1 + queries, keys)
    both = both / both.amax(-1, keepdim=True).clamp_min(1e-12)
    return (both * 255).round().to(torch.uint8).numpy(), asked, given


def _coarse(weights: Tensor, size: Size) -> Tensor:
    """``(1, heads, height, width)`` to ``(heads, *size)``."""
    return torch.nn.functional.adaptive_avg_pool2d(weights[0].cpu(), size)
