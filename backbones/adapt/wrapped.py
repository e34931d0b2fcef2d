"""Projections inside of what other libraries put around them."""

from __future__ import annotations

from torch import Tensor, nn


def weight_of(layer: nn.Module) -> Tensor:
    """The weight of a projection; of a wrapper that has none, such as an adapter of low rank, the largest inside."""
    weight = getattr(layer, "weight", None)
    return weight if isinstance(weight, Tensor) else max(layer.parameters(), key=lambda p: (p.ndim > 1, p.numel()))
