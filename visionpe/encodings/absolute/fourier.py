"""Learnable Fourier features of the coordinates, through an MLP, added to the tokens."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionpe.base import PositionEncoding
from visionpe.checks import check_count, check_number
from visionpe.grid import Grid
from visionpe.policy.functions import rescale_positions
from visionpe.precision import WideLinear, wide_dtype, without_autocast
from visionpe.ranges import check_width
from visionpe.registry import register_encoding


@register_encoding("fourier")
class LearnableFourierFeatures(PositionEncoding):
    """Cosines and sines of learned mixtures of all coordinates, then an MLP of one hidden layer; 2D and 3D.

    Source: "Learnable Fourier Features for Multi-Dimensional Spatial Positional Encoding", section 3, algorithm 1:
    ``r = [cos(x W^T), sin(x W^T)] / sqrt(features)`` and ``GELU(r W_1 + b_1) W_2 + b_2``. Coordinates run from 0 to 1
    over the trained grid. Where the axes are grouped, each group gets its share of the channels from the same weights.

    ``frequencies`` is ``(features / 2, axes / groups)``, columns in the order of the grid's axes.

    Args:
        features: Fourier features, cosines and sines together; even.
        hidden: Width of the MLP's hidden layer.
        gamma: Width of the initial Gaussian similarity over positions: entries of ``W`` have variance ``gamma ** -2``.
        groups: Groups of consecutive axes of equal size; distances are Euclidean inside one group.
        context: See :class:`~visionpe.base.PositionEncoding`. Policy ``interpolate`` lets coordinates run from 0 to 1
            at any size; ``extrapolate`` keeps the step of the trained grid.

    Raises:
        ValueError: If ``features`` is odd, ``gamma`` or ``hidden`` is not positive, or ``groups`` does not divide the
            axes and ``dim``; in use, if the tokens stand on another number of axes.
    """

    source = "Learnable Fourier Features, arXiv 2106.02795"
    irregular = True
    policies = ("interpolate", "extrapolate", "rescale")

    def __init__(
        self, *, features: int = 384, hidden: int = 32, gamma: float = 1.0, groups: int = 1, **context: Any
    ) -> None:
        super().__init__(**context)
        axes = len(self.grid_size)
        check_width("features", features)
        if features % 2:
            raise ValueError(f"features={features} must be even and positive: a cosine and a sine each")
        check_width("hidden", hidden)
        check_number("gamma", gamma, 1e-6, 1e6)
        check_count("groups", groups)
        if axes % groups or self.dim % groups:
            raise ValueError(f"groups={groups} must divide the {axes} axes and dim={self.dim}")
        self.features, self.gamma, self.groups = features, gamma, groups
        self.frequencies = nn.Parameter(torch.empty(features // 2, axes // groups, **self.factory))
        self.fc1 = WideLinear(features, hidden, **self.factory)
        self.fc2 = WideLinear(hidden, self.dim // groups, **self.factory)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.frequencies, std=1 / self.gamma)
        # The features have norm sqrt(1/2), so that these weights keep the variance of what follows near one.
        nn.init.normal_(self.fc1.weight, std=2**0.5)
        nn.init.normal_(self.fc2.weight, std=self.fc2.in_features**-0.5)
        nn.init.zeros_(self.fc1.bias)
        nn.init.zeros_(self.fc2.bias)

    def no_weight_decay(self) -> set[str]:
        return {"frequencies"}  # the MLP is an ordinary one

    def _table(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> Tensor:
        self.check_axes(grid)
        positions = grid.positions(device=device, dtype=dtype).unbind(-1)
        scaled = [
            rescale_positions(p, size, trained, self.main_policy) / trained
            for p, size, trained in zip(positions, grid.size, self.grid_size)
        ]
        points = torch.stack(scaled, dim=-1).unflatten(-1, (self.groups, -1))  # ([B,] N, groups, axes / groups)
        angles = points @ self.frequencies.to(dtype).T  # ([B,] N, groups, features / 2)
        features = torch.cat((angles.cos(), angles.sin()), dim=-1) * self.features**-0.5
        hidden = F.gelu(self.fc1(features))
        return self.fc2(hidden).flatten(-2)  # ([B,] N, dim)

    def add(self, x: Tensor, grid: Grid) -> Tensor:
        with without_autocast(x):
            table = self._table(grid, x.device, wide_dtype(x))
        return x + table.to(x.dtype)

    def extra_repr(self) -> str:
        return f"gamma={self.gamma}, groups={self.groups}, {super().extra_repr()}"
