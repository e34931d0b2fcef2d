"""Floating-point operations of a forward pass, attention included on every device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

_aten = torch.ops.aten


def _attention(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(q, k, v)  # shapes


def _product(added_to: Any, a: Any, b: Any, *_: Any, **__: Any) -> int:
    return 2 * a[0] * a[1] * a[2] * b[2]


# What PyTorch's counter leaves out: the CPU's fused attention, and products added in place.
LEFT_OUT = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten.baddbmm_: _product,
}


def count_flops(model: nn.Module, image: Tensor) -> int:
    """Floating-point operations of one image, a multiplication and an addition counting two.

    Args:
        model: In evaluation mode.
        image: ``(1, C, height, width)``.
    """
    with FlopCounterMode(display=False, custom_mapping=LEFT_OUT) as counter:
        model(image)
    return counter.get_total_flops()
