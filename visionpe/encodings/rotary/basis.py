"""What changes the basis of every head ahead of any rotary encoding."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from visionpe.base import PositionEncoding
from visionpe.encodings.rotary.base import WideParameters
from visionpe.encodings.wrappers.base import PositionWrapper
from visionpe.grid import Grid
from visionpe.kept import Keeps, may_keep
from visionpe.precision import without_autocast
from visionpe.ranges import check_table
from visionpe.registry import HINTS, Spec, create_encodings


def skew_part(a: Tensor) -> Tensor:
    """Of square matrices."""
    return (a - a.mT) / 2


class ChangedBasis(Keeps, WideParameters, PositionEncoding):
    """Base of encodings over a rotary one: queries and keys of a head are multiplied by a matrix each, then turn.

    The two matrices undo each other where nothing turns, so that prefix tokens meet as they would without. They are
    computed in at least float32, and on a CPU in evaluation kept while their parameters hold the same numbers. A policy
    is that of the encoding underneath.

    Args:
        over: The encoding underneath: one whose only site is ``rotate``, which leaves the width of heads.
        context: See :class:`~visionpe.base.PositionEncoding`.

    Raises:
        ValueError: If ``over`` is not one rotary encoding.
    """

    hands_on_hints = True
    # Parameters ``(depth, heads, ...)`` that the matrices of a block follow from.
    made_of: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, over: Spec = "rope_axial", **context: Any) -> None:
        super().__init__(**{k: v for k, v in context.items() if k not in HINTS})
        inner = create_encodings(over, **{k: v for k, v in context.items() if k != "policy"})
        if len(inner) == 1 and isinstance(inner[0], PositionWrapper):
            raise ValueError(f"over={over!r}: put the wrapper around {type(self).name} instead")
        if len(inner) != 1 or inner[0].sites() != ("rotate",) or inner[0].widens:
            raise ValueError(
                f"over={over!r} is not one rotary encoding; allowed: rope_axial, rope_mixed and others that only rotate"
            )
        self.over = inner[0]
        for fact in ("takes_coords", "whole_coords", "takes_pooled", "reads_neighbours", "reads_tokens"):
            setattr(self, fact, getattr(self.over, fact))

    def reset_parameters(self) -> None:
        self.over.reset_parameters()

    def no_weight_decay(self) -> set[str]:
        return {*self.made_of, *(f"over.{key}" for key in self.over.no_weight_decay())}

    def set_input_grid(self, grid_size: Sequence[int]) -> None:
        self.over.set_input_grid(grid_size)

    def logit_factor(self, grid: Grid) -> float:
        return self.over.logit_factor(grid)

    def of_block(self, x: Tensor, grid: Grid, *, layer: int) -> dict[str, Any]:
        return self.over.of_block(x, grid, layer=layer)

    def squares(self) -> nn.Parameter:
        """A matrix for every head of every block, zero at first: ``(depth, heads, head_dim, head_dim)``."""
        shape = check_table("dim", self.dim, self.depth, self.num_heads, self.head_dim, self.head_dim)
        return nn.Parameter(torch.zeros(shape, **self.factory))

    @abstractmethod
    def compute(self, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        """What rows of queries and of keys are multiplied by, ``(heads, head_dim, head_dim)`` each.

        Args:
            parameters: Those of ``made_of`` for one block, in at least float32.
        """

    def bases(self, layer: int) -> tuple[Tensor, Tensor]:
        """The same, of a block."""
        sources = [getattr(self, name)[layer] for name in self.made_of]

        def build() -> tuple[Tensor, Tensor]:
            return self.compute(*(t.to(torch.promote_types(t.dtype, torch.float32)) for t in sources))

        if may_keep(sources) and not self.training:
            return self.kept.get(layer, None, sources, build)
        return build()

    def rotate(self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0, **read: Any) -> tuple[Tensor, Tensor]:
        with without_autocast(q):
            q_basis, k_basis = self.bases(layer)
            wide = torch.promote_types(q.dtype, q_basis.dtype)
            q_wide, k_wide = q.to(wide) @ q_basis.to(wide), k.to(wide) @ k_basis.to(wide)
            turned = self.over.rotate(q_wide, k_wide, grid, layer=layer, **read)
            return turned[0].to(q.dtype), turned[1].to(k.dtype)
