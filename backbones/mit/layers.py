"""What MiT has that other pyramids have not: a convolution in the MLP, and a norm that ends every stage."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from visionpe.backbones.shared.reduced import ReducedStage
from visionpe.graphs import one_node


class MixMlp(nn.Module):
    """An MLP with a depthwise 3 x 3 convolution ahead of the activation, on maps (equation 3 of the paper).

    Args:
        dim, hidden: Width of the tokens, and inside.
        act_layer: The activation.
        drop: Dropout behind the activation and at the end, 0 to 1.
    """

    def __init__(self, dim: int, hidden: int, *, act_layer: Any, drop: float, **factory: Any) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden, **factory)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, **factory)
        self.act, self.drop1 = act_layer(), nn.Dropout(drop)
        self.fc2, self.drop2 = nn.Linear(hidden, dim, **factory), nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, height, width, dim)`` to the same."""
        x = self.dwconv(self.fc1(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # (B, height, width, hidden)
        return self.drop2(self.fc2(self.drop1(self.act(x))))


class MixStage(ReducedStage):
    """A stage that ends in a norm, which the next one gets as well.

    Args:
        norm: That norm.
        args: Of the stage.
    """

    def __init__(self, *args: Any, norm: nn.Module) -> None:
        super().__init__(*args)
        self.norm = norm

    @one_node
    def forward(self, x: Tensor) -> Tensor:
        """``(B, height, width, C)`` to ``(B, height', width', C')``."""
        return self.norm(super().forward(x))
