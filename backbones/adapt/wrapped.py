"""Projections inside of what other libraries put around them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionpe.watching import is_watched


def weight_of(layer: nn.Module) -> Tensor:
    """The weight of a projection; of a wrapper that has none, such as an adapter of low rank, the largest inside."""
    weight = getattr(layer, "weight", None)
    return weight if isinstance(weight, Tensor) else max(layer.parameters(), key=lambda p: (p.ndim > 1, p.numel()))


def is_bare(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a call of ``layer`` is the arithmetic of ``kind`` and no more, so that its weight stands for the call."""
    return type(layer) is kind and not is_watched(layer)


def project_without_key_bias(attention: Any, x: Tensor) -> Tensor:
    """The projection of tokens ``(..., dim)`` to queries, keys and values, of which the keys have no bias.

    One product as in timm, where the layer is bare; else it is called, so that what is around it is heard.

    Args:
        attention: With ``qkv``, and ``q_bias`` and ``v_bias``, which may be None.
        x: The tokens.

    Returns:
        ``(..., 3 * width)``.
    """
    layer, q_bias = attention.qkv, attention.q_bias
    if q_bias is None:
        projected: Tensor = layer(x)
        return projected
    bias = torch.cat((q_bias, torch.zeros_like(q_bias), attention.v_bias))
    return F.linear(x, layer.weight, bias) if is_bare(layer, nn.Linear) and layer.bias is None else layer(x) + bias
