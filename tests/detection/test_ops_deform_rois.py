"""Deformable RoI pooling of the stand-in against slow loops, and every operator on nothing."""

import itertools
import math

import pytest
import torch
from torch.autograd import gradcheck

from ops_checks import HALVES, double, needs_stand_in, on_every_device, tolerance  # isort: skip
from mmcv import ops  # isort: skip  after the stand-in
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction  # isort: skip

pytestmark = needs_stand_in
# Inside, over the edges, thin, and another image.
ROIS = [[0, 2.0, 1.0, 11.0, 9.0], [1, -4.0, -3.0, 5.5, 6.0], [0, 8.0, 9.0, 30.0, 12.5], [1, 3.3, 1.2, 4.1, 13.0]]


def pixel(plane, y, x):
    """Bilinear value of an (H, W) map whose border goes on for one pixel."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return plane.new_zeros(())
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    top, left = (min(int(value), size - 2) if size > 1 else 0 for value, size in ((y, height), (x, width)))
    value = 0
    for row, column in itertools.product((top, top + 1), (left, left + 1)):
        if row < height and column < width:
            value = value + (1 - (y - row).abs()) * (1 - (x - column).abs()) * plane[row, column]
    return value


def slow_pool(maps, rois, offset, size, scale, ratio, gamma):
    out = []
    for k, (image, *corners) in enumerate(rois.tolist()):
        left, top, right, bottom = (corner * scale - 0.5 for corner in corners)
        width, height = right - left, bottom - top
        down, across = ratio or math.ceil(height / size[0]), ratio or math.ceil(width / size[1])
        for plane, row, column in itertools.product(maps[int(image)], range(size[0]), range(size[1])):
            dx, dy = (0, 0) if offset is None else offset[k, :, row, column] * gamma
            samples = [
                pixel(
                    plane,
                    maps.new_tensor(top + (row + (i + 0.5) / down) * height / size[0]) + dy * height,
                    maps.new_tensor(left + (column + (j + 0.5) / across) * width / size[1]) + dx * width,
                )
                for i, j in itertools.product(range(down), range(across))
            ]
            out.append(sum(samples) / max(len(samples), 1))
    return torch.stack(out).view(len(rois), maps.shape[1], *size)


@on_every_device
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("shifted", [False, True])
def test_deformable_pooling_is_the_mean_of_shifted_samples(device, ratio, shifted):
    maps, rois = double(2, 2, 7, 6, device=device), torch.tensor(ROIS, dtype=torch.float64, device=device)
    offset = double(len(rois), 2, 2, 3, device=device) if shifted else None
    leaves = (maps, offset) if shifted else (maps,)
    out = ops.deform_roi_pool(maps, rois, offset, (2, 3), 0.5, ratio, 0.3)
    expected = slow_pool(maps, rois, offset, (2, 3), 0.5, ratio, 0.3)
    torch.testing.assert_close(out, expected)
    upstream = torch.randn_like(out)
    for ours, theirs in zip(
        torch.autograd.grad(out, leaves, upstream), torch.autograd.grad(expected, leaves, upstream)
    ):
        torch.testing.assert_close(ours, theirs)


def test_deformable_pooling_gradients_match_finite_differences():
    rois = torch.tensor([[0, 0.7, 1.1, 4.9, 5.3]], dtype=torch.float64)
    offset = (0.1 * torch.rand(1, 2, 2, 2, dtype=torch.float64)).requires_grad_()
    assert gradcheck(
        lambda *inputs: ops.deform_roi_pool(inputs[0], rois, inputs[1], 2, 1.0, 2), (double(1, 1, 6, 6), offset)
    )


@on_every_device
def test_deformable_pooling_without_shifts_is_roi_align(device):
    maps, rois = torch.randn(2, 3, 8, 9, device=device), torch.tensor(ROIS, device=device)
    pooled = ops.DeformRoIPoolPack(3, 3, deform_fc_channels=4, spatial_scale=0.5).to(device)(maps, rois)
    torch.testing.assert_close(pooled, ops.roi_align(maps, rois, 3, 0.5, 0, "avg", True), atol=1e-5, rtol=1e-4)


@on_every_device
@pytest.mark.parametrize("dtype", HALVES)
def test_deformable_pooling_in_half_precision(device, dtype):
    maps, rois = torch.randn(2, 3, 8, 9, device=device).to(dtype), torch.tensor(ROIS, device=device).to(dtype)
    out = ops.deform_roi_pool(maps, rois, None, (2, 2), 0.5)
    assert out.dtype == dtype
    same = ops.deform_roi_pool(maps.float(), rois.float(), None, (2, 2), 0.5)
    torch.testing.assert_close(out.float(), same, atol=tolerance(dtype), rtol=tolerance(dtype))


def attend(value, locations, weights):
    shapes = torch.tensor([[2, 2]], device=value.device)
    return MultiScaleDeformableAttnFunction.apply(value, shapes, shapes.new_zeros(1), locations, weights, 64)


# Shapes of what is differentiated, and the operator: of no image, no box, no query, no place.
EMPTY = {
    "attention of no image": ([(0, 4, 2, 3), (0, 5, 2, 1, 1, 2), (0, 5, 2, 1, 1)], attend, (0, 5, 6)),
    "attention of no query": ([(2, 4, 2, 3), (2, 0, 2, 1, 1, 2), (2, 0, 2, 1, 1)], attend, (2, 0, 6)),
    "roi_align": ([(1, 2, 4, 4)], lambda m: ops.roi_align(m, m.new_zeros(0, 5), 2), (0, 2, 2, 2)),
    "roi_align, largest": (
        [(1, 2, 4, 4)],
        lambda m: ops.roi_align(m, m.new_zeros(0, 5), 2, 1.0, 0, "max"),
        (0, 2, 2, 2),
    ),
    "roi_pool": ([(1, 2, 4, 4)], lambda m: ops.roi_pool(m, m.new_zeros(0, 5), 2), (0, 2, 2, 2)),
    "deform_roi_pool": (
        [(1, 2, 4, 4)],
        lambda m: ops.deform_roi_pool(m, m.new_zeros(0, 5), m.new_zeros(0, 2, 2, 2), 2),
        (0, 2, 2, 2),
    ),
    "sigmoid_focal_loss": (
        [(0, 3)],
        lambda x: ops.sigmoid_focal_loss(x, x.new_zeros(0, dtype=torch.long), 2.0, 0.25, None, "none"),
        (0, 3),
    ),
    "carafe": ([(0, 2, 3, 3), (0, 9, 6, 6)], lambda m, w: ops.carafe(m, w, 3, 1, 2), (0, 2, 6, 6)),
    "psa_mask": ([(0, 9, 2, 2)], lambda w: ops.PSAMask("collect", (3, 3))(w), (0, 4, 2, 2)),
}


@on_every_device
@pytest.mark.parametrize("name", EMPTY)
def test_nothing_gives_nothing(device, name):
    shapes, op, size = EMPTY[name]
    inputs = [torch.ones(shape, device=device, requires_grad=True) for shape in shapes]
    out = op(*inputs)
    assert out.shape == size
    for leaf, grad in zip(inputs, torch.autograd.grad(out.sum(), inputs)):
        assert grad.shape == leaf.shape
        assert not grad.any()
