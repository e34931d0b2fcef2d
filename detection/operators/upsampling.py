"""CARAFE of ``mmcv._ext`` on plain PyTorch, for every device.

Names, arguments and in-place outputs are those that ``mmcv.ops`` calls. Float16 and bfloat16 are computed in
float32 and written back in the dtype of the output; float64 stays float64.
"""

from __future__ import annotations

from itertools import product

import torch.nn.functional as F
from torch import Tensor

from visionpe.detection.operators.boxes import gradients, wide


def _carafe(features: Tensor, masks: Tensor, kernel: int, groups: int, scale: int) -> Tensor:
    batch, channels, height, width = features.shape
    padded = F.pad(wide(features), [kernel // 2] * 4)
    padded = padded.view(batch, groups, channels // groups, *padded.shape[2:])
    # Each pixel becomes scale x scale ones, of which each has weights of its own.
    weights = wide(masks).view(batch, groups, kernel * kernel, height, scale, width, scale)
    total = padded.new_zeros(batch, groups, channels // groups, height, scale, width, scale)
    for tap, (i, j) in enumerate(product(range(kernel), repeat=2)):
        seen = padded[..., i : i + height, j : j + width]  # (B, G, C / G, H, W)
        total = total + seen[..., None, :, None] * weights[:, :, None, tap]
    return total.view(batch, channels, height * scale, width * scale)


def carafe_naive_forward(
    features: Tensor, masks: Tensor, output: Tensor, kernel_size: int, group_size: int, scale_factor: int
) -> None:
    """Content-aware reassembly of features (Wang et al. 2019, arXiv 1905.02188).

    Args:
        features: (B, C, H, W).
        masks: (B, G * k * k, s * H, s * W): for each pixel of the output the weights of the k x k pixels around its
            source, in each of G groups of channels. Outside of the map the features are 0.
        output: (B, C, s * H, s * W), written in place.
        kernel_size: k, odd.
        group_size: G.
        scale_factor: s, at least 1.
    """
    output.copy_(_carafe(features, masks, kernel_size, group_size, scale_factor))


def carafe_naive_backward(
    top_grad: Tensor,
    features: Tensor,
    masks: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Gradients of ``carafe_naive_forward`` for the features and the masks, written in place."""
    found = gradients(
        lambda maps, weights: _carafe(maps, weights, kernel_size, group_size, scale_factor),
        (wide(features), wide(masks)),
        wide(top_grad),
    )
    bottom_grad.copy_(found[0])
    mask_grad.copy_(found[1])


def carafe_forward(
    features: Tensor, masks: Tensor, rfeatures: Tensor, routput: Tensor, rmasks: Tensor, output: Tensor, **sizes: int
) -> None:
    """``carafe_naive_forward`` with buffers, of which ``rfeatures`` gets what the backward pass needs."""
    rfeatures.copy_(features)
    carafe_naive_forward(features, masks, output, **sizes)


def carafe_backward(
    top_grad: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rtop_grad: Tensor,
    rbottom_grad_hs: Tensor,
    rbottom_grad: Tensor,
    rmask_grad: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    **sizes: int,
) -> None:
    """Gradients of ``carafe_forward``; what begins with ``r`` is a buffer, unused but for ``rfeatures``."""
    carafe_naive_backward(top_grad, rfeatures, masks, bottom_grad, mask_grad, **sizes)
