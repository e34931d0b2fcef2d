"""RoIAlign and RoIPool of the stand-in against slow loops written here: values, gradients, dtypes, no RoIs."""

import itertools
import math

import pytest
import torch
from torch.autograd import gradcheck

from visionpe.detection.operators import rois as ops_rois

from ops_checks import HALVES, double, needs_stand_in, on_every_device, tolerance  # isort: skip
from mmcv import ops  # isort: skip  after the stand-in

pytestmark = needs_stand_in


def slow_pixel(plane, y, x):
    """Bilinear value of an (H, W) map; beyond one pixel outside it is 0, up to there the edge's."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return plane.new_zeros(())
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = int(y), int(x)
    value = 0
    for row, column in itertools.product((top, top + 1), (left, left + 1)):
        share = (1 - abs(y - row)) * (1 - abs(x - column))
        if share > 0:
            value = value + share * plane[row, column]
    return value


def slow_roi_align(maps, rois, size, scale, ratio, mode, aligned):
    out = []
    for image, *corners in rois.tolist():
        left, top, right, bottom = (scale * corner - 0.5 * aligned for corner in corners)
        width, height = right - left, bottom - top
        if not aligned:
            width, height = max(width, 1.0), max(height, 1.0)
        down, across = ratio or math.ceil(height / size[0]), ratio or math.ceil(width / size[1])
        for plane, row, column in itertools.product(maps[int(image)], range(size[0]), range(size[1])):
            rows = [top + (row + (i + 0.5) / down) * height / size[0] for i in range(down)]
            columns = [left + (column + (j + 0.5) / across) * width / size[1] for j in range(across)]
            samples = [slow_pixel(plane, y, x) for y in rows for x in columns]
            if not samples:
                out.append(maps.new_zeros(()))
            else:
                out.append(sum(samples) / len(samples) if mode == "avg" else torch.stack(samples).max())
    return torch.stack(out).view(len(rois), maps.shape[1], *size)


# Inside; out of the map on every side; in the second image; narrow; without area.
ROIS = [[0, 1.3, 2.2, 9.1, 12.7], [1, -4, -3, 14, 15], [1, 2, 3, 2.4, 11], [0, 5, 5, 5, 5]]


@on_every_device
@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align_is_bilinear_samples_pooled(device, mode, aligned, ratio):
    maps, rois = double(2, 2, 8, 9, device=device), torch.tensor(ROIS, dtype=torch.float64, device=device)
    layer = ops.RoIAlign((3, 2), 0.7, ratio, mode, aligned)
    expected = slow_roi_align(maps, rois, (3, 2), 0.7, ratio, mode, aligned)
    torch.testing.assert_close(layer(maps, rois), expected)
    upstream = torch.randn_like(expected)
    grads = [torch.autograd.grad(out, maps, upstream)[0] for out in (layer(maps, rois), expected)]
    torch.testing.assert_close(*grads)
    assert gradcheck(lambda maps: layer(maps, rois), maps, fast_mode=True)


@on_every_device
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("layer", [ops.RoIAlign(3, 0.5), ops.RoIAlign(3, 0.5, pool_mode="max"), ops.RoIPool(3, 0.5)])
def test_rois_in_half_precision_are_those_of_float32(device, layer, dtype):
    maps = torch.randn(2, 4, 40, 40, device=device).to(dtype).requires_grad_()
    rois = torch.tensor([[0, 10, 20, 60, 48], [1, 8, 4, 24, 72.0]], device=device).to(dtype)
    out, same = layer(maps, rois), layer(maps.float(), rois.float())
    upstream = torch.randn_like(out)
    assert out.dtype == dtype
    torch.testing.assert_close(out, same.to(dtype))
    grad, expected = torch.autograd.grad(out, maps, upstream)[0], torch.autograd.grad(same, maps, upstream.float())[0]
    assert grad.dtype == dtype
    torch.testing.assert_close(grad.float(), expected.float(), atol=tolerance(dtype), rtol=tolerance(dtype))


@on_every_device
@pytest.mark.parametrize("layer", [ops.RoIAlign(3, 0.5), ops.RoIAlign(3, 0.5, pool_mode="max"), ops.RoIPool(3, 0.5)])
def test_no_rois_give_no_rows_and_zero_gradients(device, layer):
    maps = double(2, 4, 8, 8, device=device)
    out = layer(maps, torch.zeros(0, 5, dtype=torch.float64, device=device))
    assert out.shape == (0, 4, 3, 3)
    out.sum().backward()
    assert maps.grad.abs().sum() == 0


def slow_roi_pool(maps, rois, size, scale):
    out, limit = [], maps.shape[2:]
    for image, left, top, right, bottom in rois.tolist():
        start, end = (top * scale, left * scale), ((bottom + 1) * scale, (right + 1) * scale)
        for plane, *bin in itertools.product(maps[int(image)], range(size[0]), range(size[1])):
            edges = []
            for axis in range(2):
                step = (end[axis] - start[axis]) / size[axis]
                first = math.floor(start[axis] + bin[axis] * step)
                last = math.ceil(start[axis] + (bin[axis] + 1) * step)
                edges += [slice(min(max(first, 0), limit[axis]), min(max(last, 0), limit[axis]))]
            cut = plane[edges[0], edges[1]]
            usable = end[0] > start[0] and end[1] > start[1] and cut.numel()
            out.append(cut.max() if usable else plane.new_zeros(()))
    return torch.stack(out).view(len(rois), maps.shape[1], *size)


@on_every_device
@pytest.mark.parametrize("chunk", [1, 1 << 24])
def test_roi_pool_is_the_maximum_of_mmcvs_bins(device, chunk, monkeypatch):
    monkeypatch.setattr(ops_rois, "CHUNK", chunk)
    maps = double(2, 2, 8, 9, device=device)
    outside = [[0, 60, 60, 70, 70], [1, 6, 6, 4.9, 4.9]]  # off the map; of negative size
    rois = torch.tensor(ROIS + outside, dtype=torch.float64, device=device)
    layer = ops.RoIPool((3, 2), 0.7)
    expected = slow_roi_pool(maps, rois, (3, 2), 0.7)
    torch.testing.assert_close(layer(maps, rois), expected, rtol=0, atol=0)
    upstream = torch.randn_like(expected)
    torch.testing.assert_close(*(torch.autograd.grad(out, maps, upstream)[0] for out in (layer(maps, rois), expected)))
    assert gradcheck(lambda maps: layer(maps, rois), maps, fast_mode=True)
