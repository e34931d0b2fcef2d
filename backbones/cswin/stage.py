"""A stage of CSWin: blocks that attend in stripes, or in the whole map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from visionpe.backbones.shared.block import WindowBlock
from visionpe.backbones.shared.partition import Partition
from visionpe.backbones.shared.pyramid import Stage
from visionpe.backbones.shared.windows import WholeMap, Windows, grown_window
from visionpe.grid import Grid

StripePolicy = Literal["keep", "grow"]
StripePadding = Literal["mask", "values"]


def published_stripes(img_size: Sequence[int], stages: int = 4) -> tuple[int, ...]:
    """Stripe widths as published for a classifier of this size, tokens: 1-2-7-7 at 224 pixels, 1-2-12-12 at 384."""
    last = max(1, min(img_size) // 2 ** (stages + 1))
    return tuple(2**i if i < stages - 2 else last for i in range(stages))


class CSWinStage(Stage):
    """Blocks that attend in vertical and horizontal stripes, or in one window as large as the map.

    Args:
        downsample, blocks, encoding: See :class:`~visionpe.backbones.shared.pyramid.Stage`.
        grid_size: Height and width of the map at the trained size, tokens.
        stripe_width: At that size, tokens; None for one window.
        stripe_policy: See :class:`CSWinTransformer`.
        padding: Likewise.
    """

    def __init__(
        self,
        downsample: nn.Module,
        blocks: Sequence[WindowBlock],
        encoding: nn.Module,
        *,
        grid_size: tuple[int, int],
        stripe_width: int | None,
        stripe_policy: StripePolicy,
        padding: StripePadding,
    ) -> None:
        super().__init__(downsample, blocks, encoding)
        self.grid_size, self.stripe_width = grid_size, stripe_width
        self.stripe_policy, self.padding = stripe_policy, padding

    @property
    def windows_grow(self) -> bool:
        return self.stripe_policy == "grow"

    def _stripe(self, axis: int, length: int) -> int:
        """Width of the stripes that cut an axis of this length, tokens."""
        width, trained = self.stripe_width, self.grid_size[axis]
        if width is None:
            return length
        if not self.windows_grow or 2 * width < min(self.grid_size):
            return width
        return grown_window(width, length, trained)

    def windows(self, size: tuple[int, int]) -> dict[str, Windows]:
        """The ways to cut a map of this size, tokens, in the order of the heads."""
        if self.stripe_width is None:
            return {"full": WholeMap(size, size)}
        height, width = size
        shapes = {"vertical": (height, self._stripe(1, width)), "horizontal": (self._stripe(0, height), width)}
        return {kind: Windows(size, shape, centred=self.padding == "values") for kind, shape in shapes.items()}

    def partitions(self, size: tuple[int, int], device: torch.device) -> list[list[Partition]]:
        masked = self.stripe_width is not None and self.padding == "mask"
        ways = []
        for kind, windows in self.windows(size).items():
            mask = self.mask(windows, device) if masked else None
            ways.append((windows, self.pos_encoding.inside[kind], Grid(size=windows.window), mask))
        return [
            [Partition(windows, encoding, grid, mask, layer) for windows, encoding, grid, mask in ways]
            for layer in range(len(self.blocks))
        ]
