"""Positions dropped at random in training."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from visionpe.attention.dispatch import AttentionWeights
from visionpe.checks import check_choice, check_number
from visionpe.encodings.wrappers.base import PositionWrapper
from visionpe.grid import Grid
from visionpe.registry import register_wrapper

Unit = Literal["image", "token"]


@register_wrapper("dropped")
class DroppedPositions(PositionWrapper):
    """In training some tokens get no position: the encoding underneath leaves them as they are.

    Source: unit ``image``, the positional embedding dropout of "Contrastive Feature Masking Open-Vocabulary Vision
    Transformer", at rate 0.5; unit ``token``, as "DropPos: Pre-Training Vision Transformers by Reconstructing Dropped
    Positions" hides them. Prefix tokens are as without the wrapper. A token that a rotary encoding leaves as it is
    stands at the origin; only a whole image of them has no position at all.

    Args:
        over: The encoding underneath, ``"dropped(ape)"``; it may add, refine, rotate and mix, but have no bias.
        rate: Probability of being dropped, 0 to 1.
        unit: What is dropped on its own: ``image`` (all tokens of a sample together) or ``token``.
        context: See :class:`~visionpe.base.PositionEncoding`.

    Raises:
        ValueError: If ``over`` is not one encoding or has a bias, ``rate`` lies outside 0 to 1 or ``unit`` is unknown.
    """

    source = "CFM-ViT, arXiv 2309.00775; DropPos, arXiv 2309.03576"

    def __init__(self, *, rate: float = 0.5, unit: Unit = "image", **context: Any) -> None:
        super().__init__(**context)
        check_number("rate", rate, 0, 1, kind="probability")
        check_choice("unit", unit, Unit)
        if "bias" in self.acts_at:
            raise ValueError(
                f"over={self.name!r} cannot be dropped: its bias belongs to pairs of tokens, and to drop "
                "it from some of them would take the N x N matrix; allowed: encodings that add, refine, rotate or mix"
            )
        if self.widens:
            raise ValueError(
                f"over={self.name!r} cannot be dropped: queries and keys leave it wider than others are; "
                "allowed: encodings that keep the width of heads"
            )
        self.rate, self.unit = rate, unit

    def draw(self, grid: Grid, batch: int, device: torch.device) -> Tensor:
        """Which ones keep their position, ``(B, 1)`` or ``(B, N_spatial)``, boolean."""
        return torch.rand(batch, 1 if self.unit == "image" else grid.num_spatial, device=device) >= self.rate

    def fits(self, drawn: Tensor, grid: Grid) -> bool:
        return self.unit == "image" or drawn.shape[1] in (grid.num_spatial, _extent(grid))

    def ready(self, drawn: Tensor, grid: Grid) -> Tensor:
        """The same for the tokens at hand, prefix tokens among them: ``(B, N)``."""
        if self.unit == "token" and drawn.shape[1] != grid.num_spatial:  # drawn before patches were dropped
            place = torch.zeros((), dtype=torch.long, device=drawn.device)
            for n, p in zip(grid.size, grid.whole_positions(type(self).name, device=drawn.device).unbind(-1)):
                place = place * n + p
            drawn = drawn.gather(1, place.expand(len(drawn), -1))
        return F.pad(drawn.expand(-1, grid.num_spatial), (grid.prefix, 0), value=True)

    def _where(self, x: Tensor, grid: Grid, encoded: Tensor, plain: Tensor) -> Tensor:
        """``encoded`` where the position is kept, else ``plain``; tokens on the last axis but one."""
        keep = self.drawn(x, grid)[..., -plain.shape[-2] :, None]  # `add` sees no prefix tokens
        return torch.where(keep if plain.ndim == 3 else keep[:, None], encoded, plain)

    def _active(self, site: str) -> bool:
        return self.training and site in self.acts_at

    def add(self, x: Tensor, grid: Grid) -> Tensor:
        encoded = super().add(x, grid)
        return self._where(x, grid, encoded, x) if self._active("add") else encoded

    def inject(self, x: Tensor, grid: Grid, *, layer: int = 0) -> Tensor:
        encoded = super().inject(x, grid, layer=layer)
        return self._where(x, grid, encoded, x) if self._active("inject") else encoded

    def refine(self, x: Tensor, grid: Grid, *, layer: int = 0) -> Tensor:
        encoded = super().refine(x, grid, layer=layer)
        return self._where(x, grid, encoded, x) if self._active("refine") else encoded

    def rotate(self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0, **read: Any) -> tuple[Tensor, Tensor]:
        turned_q, turned_k = super().rotate(q, k, grid, layer=layer, **read)
        if not self._active("rotate"):
            return turned_q, turned_k
        return self._where(q, grid, turned_q, q), self._where(q, grid, turned_k, k)

    def mix(
        self, attended: Tensor, v: Tensor, grid: Grid, *, layer: int = 0, weights: AttentionWeights | None = None
    ) -> Tensor:
        mixed = super().mix(attended, v, grid, layer=layer, weights=weights)
        return self._where(v, grid, mixed, attended) if self._active("mix") else mixed

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rate={self.rate}, unit={self.unit!r}"


def _extent(grid: Grid) -> int:
    return Grid(grid.size).num_spatial
