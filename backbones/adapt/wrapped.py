"""Projections inside of what other libraries put around them."""

from __future__ import annotations

from torch import Tensor, nn


def weight_of(layer: nn.Module) -> Tensor:
    """The weight of a projection; of a wrapper that has none, such as an adapter of low rank, the largest inside."""
    weight = getattr(layer, "weight", None)
    return weight if isinstance(weight, Tensor) else max(layer.parameters(), key=lambda p: (p.ndim > 1, p.numel()))


def is_bare(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a call of ``layer`` is the arithmetic of ``kind`` and no more, so that its weight stands for the call."""
    heard = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return type(layer) is kind and not any(heard)
