"""The RoI operators of ``mmcv._ext`` on torchvision and plain PyTorch, for every device.

Names, arguments and in-place outputs are those that ``mmcv.ops`` calls. Float16 and bfloat16 are computed in
float32 and written back in the dtype of the output; float64 stays float64.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import ops as vision

from visionpe.detection.operators.boxes import wide

# RoIPool gathers whole bins: how many numbers at a time.
CHUNK = 1 << 24


def _sampling_grids(rois: Tensor, size: tuple[int, int], scale: float, ratio: int, aligned: bool) -> Tensor:
    """Return (K, 2) whole numbers: how many samples, down and across, RoIAlign takes in a bin of each RoI."""
    if ratio > 0:
        return torch.full((len(rois), 2), ratio)
    extent = (rois[:, 3:] - rois[:, 1:3]) * scale  # (K, 2) width, height
    if not aligned:
        extent = extent.clamp(min=1)
    return (extent.flip(1) / extent.new_tensor(size)).ceil().long().cpu()


def same_grid(
    rois: Tensor, size: tuple[int, int], scale: float, ratio: int, aligned: bool
) -> Iterator[tuple[Tensor, tuple[int, int]]]:
    """Yield ``(which, grid)``: the indices of the RoIs that share a sampling grid, and that grid."""
    grids, member = _sampling_grids(rois, size, scale, ratio, aligned).unique(dim=0, return_inverse=True)
    for number, (down, across) in enumerate(grids.tolist()):
        if down > 0 and across > 0:  # an empty RoI has no samples: zero, as for the mean
            yield (member == number).nonzero()[:, 0].to(rois.device), (down, across)


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """RoIAlign (He et al. 2017, arXiv 1703.06870).

    Args:
        input: (B, C, H, W).
        rois: (K, 5): image index and corners in pixels of the image.
        output: (K, C, ``aligned_height``, ``aligned_width``), written in place.
        argmax_y: Like ``output`` for ``pool_mode`` 0, written in place: the row of the winning sample in its bin.
        argmax_x: The same for the column.
        aligned_height: Bins down.
        aligned_width: Bins across.
        spatial_scale: Pixels of the map per pixel of the image.
        sampling_ratio: Samples per bin and axis; 0 for one per pixel of the map.
        pool_mode: 1 for the mean of the samples of a bin, 0 for their maximum.
        aligned: Take half a pixel off, so that pixel centres lie at whole numbers.
    """
    values, boxes, size = wide(input), wide(rois).to(wide(input).dtype), (aligned_height, aligned_width)
    if pool_mode == 1:
        output.copy_(vision.roi_align(values, boxes, size, spatial_scale, sampling_ratio, aligned))
        return
    for which, (down, across) in same_grid(boxes, size, spatial_scale, sampling_ratio, aligned):
        # One sample in each of finer bins is the same grid of samples, laid out as an image.
        fine = (size[0] * down, size[1] * across)
        samples = vision.roi_align(values, boxes[which], fine, spatial_scale, 1, aligned)  # (k, C, *fine)
        best, place = F.max_pool2d(samples, (down, across), return_indices=True)  # (k, C, *size)
        output[which] = best.to(output.dtype)
        argmax_y[which] = (place // fine[1] % down).to(argmax_y.dtype)
        argmax_x[which] = (place % fine[1] % across).to(argmax_x.dtype)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Gradient of ``roi_align_forward``, written to ``grad_input`` (B, C, H, W)."""
    grads, size = wide(grad_output), (aligned_height, aligned_width)
    boxes, shape = wide(rois).to(grads.dtype), grad_input.shape
    backward = torch.ops.torchvision._roi_align_backward
    if pool_mode == 1:
        grad_input.copy_(backward(grads, boxes, spatial_scale, *size, *shape, sampling_ratio, aligned))
        return
    total = grads.new_zeros(shape)
    rows, columns = (torch.arange(n, device=grads.device) for n in size)
    for which, (down, across) in same_grid(boxes, size, spatial_scale, sampling_ratio, aligned):
        fine = (size[0] * down, size[1] * across)
        y = rows[:, None] * down + argmax_y[which].long()  # (k, C, *size)
        x = columns * across + argmax_x[which].long()
        samples = F.max_unpool2d(grads[which], y * fine[1] + x, (down, across), output_size=fine)
        total += backward(samples, boxes[which], spatial_scale, *fine, *shape, 1, aligned)
    grad_input.copy_(total)


def _bins(start: Tensor, end: Tensor, count: int, limit: int) -> tuple[Tensor, Tensor]:
    """Return first and last-plus-one pixel of each bin along one axis, both (K, count), clipped to the map."""
    step = ((end - start) / count)[:, None]  # (K, 1)
    edge = torch.arange(count + 1, device=start.device) * step + start[:, None]  # (K, count + 1)
    return edge[:, :-1].floor().long().clamp(0, limit), edge[:, 1:].ceil().long().clamp(0, limit)


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """RoIPool (Girshick 2015, arXiv 1504.08083) with mmcv's bins, which torchvision's differ from.

    mmcv rounds only the edges of the bins, and counts the last pixel of a RoI as inside; torchvision rounds the RoI.

    Args:
        input: (B, C, H, W).
        rois: (K, 5): image index and corners in pixels of the image.
        output: (K, C, ``pooled_height``, ``pooled_width``), written in place; 0 where a bin is empty.
        argmax: int, like ``output``, written in place: ``y * W + x`` of the maximum, -1 where a bin is empty.
        pooled_height: Bins down.
        pooled_width: Bins across.
        spatial_scale: Pixels of the map per pixel of the image.
    """
    channels, height, width = input.shape[1:]
    boxes, image = wide(rois), rois[:, 0].long()
    left, top = boxes[:, 1] * spatial_scale, boxes[:, 2] * spatial_scale
    right, bottom = (boxes[:, 3] + 1) * spatial_scale, (boxes[:, 4] + 1) * spatial_scale
    y0, y1 = _bins(top, bottom, pooled_height, height)  # (K, PH)
    x0, x1 = _bins(left, right, pooled_width, width)  # (K, PW)
    tall, broad = (int((b - a).max().clamp(min=1)) if a.numel() else 1 for a, b in ((y0, y1), (x0, x1)))
    usable = ((right > left) & (bottom > top))[:, None, None, None, None]
    step = max(1, CHUNK // max(1, channels * pooled_height * tall * pooled_width * broad))
    for k in torch.arange(len(rois), device=input.device).split(step):
        y = y0[k, :, None] + torch.arange(tall, device=y0.device)  # (k, PH, tall)
        x = x0[k, :, None] + torch.arange(broad, device=x0.device)  # (k, PW, broad)
        inside = (y < y1[k, :, None])[:, :, None, :, None] & (x < x1[k, :, None])[:, None, :, None] & usable[k]
        place = y.clamp(max=height - 1)[:, :, None, :, None] * width + x.clamp(max=width - 1)[:, None, :, None]
        place, inside = place.flatten(3), inside.flatten(3)  # (k, PH, PW, tall * broad)
        values = input.flatten(2)[image[k, None, None, None], :, place].permute(0, 4, 1, 2, 3)  # (k, C, PH, PW, n)
        best, which = values.masked_fill(~inside[:, None], -torch.inf).max(-1)  # (k, C, PH, PW)
        empty = ~inside.any(-1)[:, None]
        output[k] = best.masked_fill(empty, 0).to(output.dtype)
        where = place[:, None].expand(*values.shape).gather(-1, which[..., None])[..., 0]
        argmax[k] = where.masked_fill(empty, -1).to(argmax.dtype)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Gradient of ``roi_pool_forward``, written to ``grad_input`` (B, C, H, W)."""
    batch, channels, height, width = grad_input.shape
    plane = rois[:, :1].long() * channels + torch.arange(channels, device=rois.device)  # (K, C)
    place = plane[..., None, None] * (height * width) + argmax  # (K, C, PH, PW)
    hit = argmax >= 0
    total = wide(grad_output).new_zeros(batch * channels * height * width)
    total.index_add_(0, place[hit], wide(grad_output)[hit])
    grad_input.copy_(total.view_as(grad_input))
