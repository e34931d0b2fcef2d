"""Deformable attention of ``mmcv._ext`` on plain PyTorch, for every device.

Names, arguments and in-place outputs are those that ``mmcv.ops`` calls. Float16 and bfloat16 are computed in
float32 and written back in the dtype of the output; float64 stays float64.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from visionpe.detection.operators.boxes import gradients, wide


def _levels(spatial_shapes: Tensor, starts: Tensor) -> list[list[int]]:
    """Return ``[height, width, start]`` of each level; one wait for the device, not two."""
    return torch.cat([spatial_shapes, starts[:, None]], 1).tolist()


def _deformable_attention(levels: list[list[int]], value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    batch, _, heads, dim = value.shape
    if not locations.numel():  # grid_sample refuses to work on nothing
        return value.new_zeros(batch, locations.shape[1], heads * dim)
    grid = (2 * locations - 1).transpose(1, 2).flatten(0, 1)  # (B * M, Q, L, P, 2)
    share = weights.transpose(1, 2).flatten(0, 1)[:, None]  # (B * M, 1, Q, L, P)
    total = value.new_zeros(batch * heads, dim, grid.shape[1])  # (B * M, D, Q)
    for level, (height, width, start) in enumerate(levels):
        plane = value[:, start : start + height * width].permute(0, 2, 3, 1)  # (B, M, D, H * W)
        plane = plane.reshape(batch * heads, dim, height, width)
        sampled = F.grid_sample(plane, grid[:, :, level], align_corners=False)  # (B * M, D, Q, P)
        total = total + (sampled * share[..., level, :]).sum(-1)
    return total.view(batch, heads * dim, -1).transpose(1, 2).contiguous()  # (B, Q, M * D)


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int = 64,
) -> Tensor:
    """Multi-scale deformable attention (Zhu et al. 2020, arXiv 2010.04159, eq. 3).

    Args:
        value: (B, S, M, D): the L maps, flattened and joined, for M heads of D channels.
        value_spatial_shapes: (L, 2) height and width of each map.
        value_level_start_index: (L,) where each map begins in S.
        sampling_locations: (B, Q, M, L, P, 2), x and y in 0 to 1 over the map; outside of it the value is 0.
        attention_weights: (B, Q, M, L, P).
        im2col_step: Unused; how the compiled operator splits the batch.

    Returns:
        (B, Q, M * D) in the dtype of ``value``.
    """
    levels = _levels(value_spatial_shapes, value_level_start_index)
    inputs = (tensor.to(wide(value).dtype) for tensor in (value, sampling_locations, attention_weights))
    return _deformable_attention(levels, *inputs).to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int = 64,
) -> None:
    """Gradients of ``ms_deform_attn_forward``, written to the three ``grad_`` tensors."""
    levels = _levels(value_spatial_shapes, value_level_start_index)
    dtype = wide(value).dtype
    found = gradients(
        lambda *inputs: _deformable_attention(levels, *inputs),
        [tensor.to(dtype) for tensor in (value, sampling_locations, attention_weights)],
        grad_output.to(dtype),
    )
    for out, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), found):
        out.copy_(grad)
