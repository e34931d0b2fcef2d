"""What the wrappers that move tokens share."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from visionpe.encodings.wrappers.base import PositionWrapper
from visionpe.grid import Grid


class MovedPositions(PositionWrapper):
    """Base of the wrappers that move tokens: in training the encoding underneath sees another grid."""

    moves_tokens = True

    @abstractmethod
    def ready(self, drawn: Tensor, grid: Grid) -> Grid:
        """The grid on which the tokens stand in this pass."""

    def stand(self, x: Tensor, grid: Grid) -> Grid:
        if not self.training:
            return grid
        self.check_axes(grid)
        return self.drawn(x, grid)
