"""What attention of timm's is told of positions, by way of an argument that its blocks hand down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from timm.models import checkpoint
from torch import Tensor, nn

from visionpe.attention.dispatch import AttentionWeights
from visionpe.backbones.shared.encoded import Attended, attend_as, encoded_attention
from visionpe.composition import Composition
from visionpe.grid import Grid
from visionpe.mixed import MixedGrid
from visionpe.one_block import is_compiled, only
from visionpe.opaque import opaque


@opaque
@dataclass(frozen=True)
class Told:
    """The encoding, where the tokens stand, and who asks.

    Args:
        encoding: Its sites ``inject``, and those inside attention.
        grid: Where the tokens stand.
        layer: Index of the block among those that the encoding serves.
        mask: Boolean (True takes part) or additive, broadcastable to ``(B, heads, N, N)``, or None.
    """

    encoding: Composition
    grid: Grid | MixedGrid
    layer: int = 0
    mask: Tensor | None = None

    def inject(self, x: Tensor) -> Tensor:
        """The input of attention, ``(B, N, dim)``."""
        return self.encoding.inject(x, self.grid, layer=self.layer)

    def attend(
        self,
        attention: nn.Module,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        tokens: Tensor | None = None,
        attended: Attended | None = None,
    ) -> Tensor:
        """Attention ``(B, heads, N, head_dim)``, by ``attended`` or the dropout and kernel of ``attention``."""

        def as_timm(v: Tensor, weights: AttentionWeights) -> tuple[Tensor, AttentionWeights]:
            return attend_as(attention, v, weights), weights

        return encoded_attention(
            q,
            k,
            v,
            self.encoding,
            self.grid,
            attended=attended or as_timm,
            plain=None if attended else attention,
            layer=self.layer,
            mask=self.mask,
            tokens=tokens,
        )

    def for_one_block(self, x: Tensor) -> Told:
        """The same, for a block that is compiled by itself and given ``x``."""
        assert isinstance(self.grid, Grid)
        return Told(only(self.encoding, self.layer, x, self.grid), self.grid, 0, self.mask)


def run_told(block: nn.Module, x: Tensor, told: Told, *, keyword: str, checkpointed: bool, **others: Any) -> Tensor:
    """A block of timm's on ``x``, which hands ``told`` to its attention as the argument ``keyword``."""
    if is_compiled(block) and not isinstance(told.grid, MixedGrid):
        told = told.for_one_block(x)
    if checkpointed:
        return cast(Tensor, checkpoint(block, x, **{keyword: told}, **others))
    return cast(Tensor, block(x, **{keyword: told}, **others))
