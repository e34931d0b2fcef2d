"""Deformable RoI pooling of ``mmcv._ext`` on plain PyTorch, for every device.

Names, arguments and in-place outputs are those that ``mmcv.ops`` calls. Float16 and bfloat16 are computed in
float32 and written back in the dtype of the output; float64 stays float64.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from visionpe.detection.operators.boxes import gradients, wide
from visionpe.detection.operators.rois import same_grid


def _along(start: Tensor, extent: Tensor, bins: int, samples: int) -> Tensor:
    """Return (K, bins, samples): where the samples of each bin lie along one axis."""
    steps = (torch.arange(bins * samples, device=start.device, dtype=start.dtype) + 0.5).view(bins, samples) / (
        bins * samples
    )
    return start[:, None, None] + extent[:, None, None] * steps


def _read(plane: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Return (C, K, PH, PW): mean of (C, H, W) at points (K, PH, PW, samples); the border goes on for one pixel."""
    height, width = plane.shape[1:]
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    values = F.grid_sample(plane[None], grid.flatten(1, -2)[None], padding_mode="border", align_corners=False)
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    return (values.view(-1, *x.shape) * inside).mean(-1)


def _pooling(
    rois: Tensor, size: tuple[int, int], scale: float, ratio: int, gamma: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the pooling as a function of the maps and the offsets."""

    def pool(maps: Tensor, offset: Tensor) -> Tensor:
        total = maps.new_zeros(len(rois), maps.shape[1], *size)
        for which, (down, across) in same_grid(rois, size, scale, ratio, aligned=True):
            corners = rois[which, 1:] * scale - 0.5
            extent = corners[:, 2:] - corners[:, :2]  # (k, 2) width, height
            x = _along(corners[:, 0], extent[:, 0], size[1], across)[:, None, :, None]  # (k, 1, PW, 1, across)
            y = _along(corners[:, 1], extent[:, 1], size[0], down)[:, :, None, :, None]  # (k, PH, 1, down, 1)
            x, y = torch.broadcast_tensors(x, y)
            if offset.numel():
                shift = gamma * extent[:, :, None, None] * offset[which]  # (k, 2, PH, PW)
                x, y = x + shift[:, 0, :, :, None, None], y + shift[:, 1, :, :, None, None]
            for image in rois[which, 0].unique().long().tolist():
                here = rois[which, 0] == image
                values = _read(maps[image], y[here].flatten(3), x[here].flatten(3)).transpose(0, 1)
                total = total.index_add(0, which[here], values)
        return total

    return pool


def deform_roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Deformable RoI pooling (Dai et al. 2017, arXiv 1703.06211): RoIAlign whose bins are shifted.

    Args:
        input: (B, C, H, W).
        rois: (K, 5): image index and corners in pixels of the image.
        offset: (K, 2, PH, PW) shift of each bin in x and y, in widths and heights of the RoI times ``gamma``; or empty.
        output: (K, C, PH, PW), written in place.
        pooled_height: PH.
        pooled_width: PW.
        spatial_scale: Pixels of the map per pixel of the image.
        sampling_ratio: Samples per bin and axis; 0 for one per pixel of the map.
        gamma: See ``offset``.
    """
    maps = wide(input)
    pool = _pooling(rois.to(maps.dtype), (pooled_height, pooled_width), spatial_scale, sampling_ratio, gamma)
    output.copy_(pool(maps, offset.to(maps.dtype)))


def deform_roi_pool_backward(
    grad_output: Tensor,
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Gradients of ``deform_roi_pool_forward``, written to ``grad_input`` and ``grad_offset``.

    They are exact; the compiled operator's differ where a sample lies outside of the outermost pixels' centres: it
    takes the slope of the map inside there.
    """
    maps = wide(input)
    pool = _pooling(rois.to(maps.dtype), (pooled_height, pooled_width), spatial_scale, sampling_ratio, gamma)
    found = gradients(pool, (maps, offset.to(maps.dtype)), grad_output.to(maps.dtype))
    grad_input.copy_(found[0])
    grad_offset.copy_(found[1])
