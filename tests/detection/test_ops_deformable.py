"""Deformable attention and convolution of the stand-in against slow loops written here."""

import itertools
import math
import sys

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from ops_checks import double, needs_stand_in, on_every_device  # isort: skip
from mmcv import ops  # isort: skip  after the stand-in
from mmcv.ops.multi_scale_deform_attn import (  # isort: skip
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)

pytestmark = needs_stand_in
SHAPES = [(4, 5), (2, 3), (1, 1)]


def zero_outside(plane, y, x):
    """Bilinear value of an (H, W) map that is 0 outside."""
    value, top, left = plane.new_zeros(()), math.floor(float(y.detach())), math.floor(float(x.detach()))
    for row, column in itertools.product((top, top + 1), (left, left + 1)):
        if 0 <= row < plane.shape[0] and 0 <= column < plane.shape[1]:
            value = value + (1 - (y - row).abs()) * (1 - (x - column).abs()) * plane[row, column]
    return value


def slow_attention(value, locations, weights):
    batch, _, heads, dim = value.shape
    queries, levels, points = locations.shape[1], locations.shape[3], locations.shape[4]
    out = []
    for b, q, m, d in itertools.product(range(batch), range(queries), range(heads), range(dim)):
        total, start = value.new_zeros(()), 0
        for level, (height, width) in enumerate(SHAPES[:levels]):
            plane = value[b, start : start + height * width, m, d].view(height, width)
            start += height * width
            for p in range(points):
                x, y = locations[b, q, m, level, p]
                # a location of 0 is the edge of the first pixel, whose centre is at half a pixel
                sample = zero_outside(plane, y * height - 0.5, x * width - 0.5)
                total = total + weights[b, q, m, level, p] * sample
        out.append(total)
    return torch.stack(out).view(batch, queries, heads * dim)


def attention_inputs(device, batch=2, queries=3, heads=2, dim=2, points=2):
    value = double(batch, sum(h * w for h, w in SHAPES), heads, dim, device=device)
    shapes = torch.tensor(SHAPES, device=device)
    starts = torch.cat([shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]])
    spread = torch.rand(batch, queries, heads, len(SHAPES), points, 2, dtype=torch.float64, device=device)
    locations = (spread * 1.4 - 0.2).requires_grad_()  # some outside the map
    weights = torch.rand(batch, queries, heads, len(SHAPES), points, dtype=torch.float64, device=device)
    return value, shapes, starts, locations, weights.requires_grad_()


def attend(value, shapes, starts, locations, weights):
    return MultiScaleDeformableAttnFunction.apply(value, shapes, starts, locations, weights, 64)


@on_every_device
def test_deformable_attention_is_weighted_bilinear_samples(device):
    inputs = attention_inputs(device)
    value, shapes, _, locations, weights = inputs
    expected = slow_attention(value, locations, weights)
    torch.testing.assert_close(attend(*inputs), expected)
    torch.testing.assert_close(multi_scale_deformable_attn_pytorch(value, shapes, locations, weights), expected)
    upstream, leaves = torch.randn_like(expected), (value, locations, weights)
    for ours, theirs in zip(
        torch.autograd.grad(attend(*inputs), leaves, upstream), torch.autograd.grad(expected, leaves, upstream)
    ):
        torch.testing.assert_close(ours, theirs)


def test_deformable_attention_gradients_match_finite_differences():
    value, shapes, starts, locations, weights = attention_inputs("cpu", batch=1, queries=2, points=1)
    assert gradcheck(lambda v, x, w: attend(v, shapes, starts, x, w), (value, locations, weights))


@on_every_device
def test_deformable_attention_reads_where_the_levels_start(device):
    value, shapes, starts, locations, weights = attention_inputs(device)
    gap = torch.full((2, 3, 2, 2), 9.0, dtype=torch.float64, device=device)
    padded = torch.cat([gap, value], 1)
    torch.testing.assert_close(
        attend(padded, shapes, starts + 3, locations, weights), attend(value, shapes, starts, locations, weights)
    )


@on_every_device
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_deformable_attention_in_half_precision(device, dtype):
    value, shapes, starts, locations, weights = attention_inputs(device)
    halves = [tensor.detach().to(dtype).requires_grad_() for tensor in (value, locations, weights)]
    wide = [tensor.detach().float().requires_grad_() for tensor in halves]
    out, same = (attend(v, shapes, starts, x, w) for v, x, w in (halves, wide))
    assert out.dtype == dtype
    torch.testing.assert_close(out, same.to(dtype))
    upstream = torch.randn_like(out)
    found = torch.autograd.grad(out, halves, upstream)
    for grad, expected in zip(found, torch.autograd.grad(same, wide, upstream.float())):
        assert grad.dtype == dtype
        torch.testing.assert_close(grad, expected.to(dtype))


@on_every_device
def test_deformable_attention_layer_through_the_operator(device, monkeypatch):
    """On CUDA mmcv's layer calls the operator; both ways must agree, so take the CUDA one here too."""
    layer = ops.MultiScaleDeformableAttention(8, 2, len(SHAPES), 2, dropout=0.0, batch_first=True).double().to(device)
    torch.nn.init.normal_(layer.attention_weights.weight)
    shapes = torch.tensor(SHAPES, device=device)
    starts = torch.cat([shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]])
    query, value = double(2, 4, 8, device=device), double(2, 27, 8, device=device)
    anchors = torch.rand(2, 4, len(SHAPES), 2, dtype=torch.float64, device=device)
    kwargs = dict(value=value, reference_points=anchors, spatial_shapes=shapes, level_start_index=starts)
    out = layer(query, **kwargs)
    module = sys.modules["mmcv.ops.multi_scale_deform_attn"]
    calls = []

    def other(value, shapes, locations, weights):
        calls.append(value.shape)
        return MultiScaleDeformableAttnFunction.apply(value, shapes, starts, locations, weights, 64)

    monkeypatch.setattr(module, "IS_CUDA_AVAILABLE", False)
    monkeypatch.setattr(module, "multi_scale_deformable_attn_pytorch", other)
    torch.testing.assert_close(layer(query, **kwargs), out)
    assert calls


def slow_conv(maps, offset, weight, mask=None, bias=None, stride=1, padding=0, dilation=1, groups=1, deform_groups=1):
    outputs, height, width = weight.shape[0], *weight.shape[2:]
    taps, spread = height * width, maps.shape[1] // deform_groups
    out = []
    for b, o, row, column in itertools.product(range(len(maps)), range(outputs), *map(range, offset.shape[2:])):
        total = maps.new_zeros(()) if bias is None else bias[o]
        first = o // (outputs // groups) * weight.shape[1]
        for c, i, j in itertools.product(range(weight.shape[1]), range(height), range(width)):
            group, tap = (first + c) // spread, i * width + j
            dy, dx = offset[b, 2 * (group * taps + tap) :][:2, row, column]
            y, x = row * stride - padding + i * dilation + dy, column * stride - padding + j * dilation + dx
            factor = 1 if mask is None else mask[b, group * taps + tap, row, column]
            total = total + weight[o, c, i, j] * factor * zero_outside(maps[b, first + c], y, x)
        out.append(total)
    return torch.stack(out).view(len(maps), outputs, *offset.shape[2:])


CONVS = [dict(), dict(stride=2, padding=1), dict(padding=2, dilation=2, groups=2, deform_groups=2)]


def conv_inputs(device, settings):
    groups, deform = settings.get("groups", 1), settings.get("deform_groups", 1)
    maps, weight = double(1, 4, 5, 6, device=device), double(2, 4 // groups, 3, 2, device=device)
    plain = {key: settings[key] for key in settings if key != "deform_groups"}
    size = F.conv2d(maps, weight, **plain).shape[2:]
    offset = double(1, deform * 12, *size, device=device)
    mask = double(1, deform * 6, *size, device=device)
    return maps, offset, weight, mask, double(2, device=device)


@on_every_device
@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("settings", CONVS)
def test_deformable_convolution_is_shifted_taps(device, settings, modulated):
    maps, offset, weight, mask, bias = conv_inputs(device, settings)
    if modulated:
        leaves = (maps, offset, mask, weight, bias)
        out = ops.modulated_deform_conv2d(*leaves, *(settings.get(k, d) for k, d in ARGUMENTS))
        expected = slow_conv(maps, offset, weight, mask, bias, **settings)
    else:
        leaves = (maps, offset, weight)
        out = ops.deform_conv2d(*leaves, *(settings.get(k, d) for k, d in ARGUMENTS))
        expected = slow_conv(maps, offset, weight, **settings)
    torch.testing.assert_close(out, expected)
    upstream = torch.randn_like(out)
    for ours, theirs in zip(
        torch.autograd.grad(out, leaves, upstream), torch.autograd.grad(expected, leaves, upstream)
    ):
        torch.testing.assert_close(ours, theirs)


ARGUMENTS = [("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1), ("deform_groups", 1)]


@on_every_device
def test_deformable_convolution_without_offsets_is_a_convolution(device):
    layer = ops.DeformConv2d(4, 6, 3, padding=1, stride=2).to(device)
    maps = torch.randn(2, 4, 8, 9, device=device)
    expected = F.conv2d(maps, layer.weight, stride=2, padding=1)
    torch.testing.assert_close(layer(maps, torch.zeros(2, 18, 4, 5, device=device)), expected)
    pack = ops.ModulatedDeformConv2dPack(4, 6, 3, padding=1, bias=False).to(device)  # its offsets begin at 0, mask 1/2
    torch.testing.assert_close(pack(maps), F.conv2d(maps, pack.weight, padding=1) / 2)


@on_every_device
def test_modulated_convolution_takes_the_first_of_too_many_offsets(device):
    """As mmcv, which mmdet's DyHead counts on: per sample, the numbers are read in the order they lie in."""
    maps, offset, weight, mask, _ = conv_inputs(device, {})
    size = offset.shape[2:]
    larger = [
        torch.cat([t.detach().flatten(1), torch.full((1, 5 * t.shape[1]), 7.0, device=device)], 1)
        for t in (offset, mask)
    ]
    larger = [t.unflatten(1, (-1, 1, size.numel() + 5)).requires_grad_() for t in larger]
    out = ops.modulated_deform_conv2d(maps, *larger, weight)
    expected = ops.modulated_deform_conv2d(maps, offset, mask, weight)
    torch.testing.assert_close(out, expected)
    upstream = torch.randn_like(out)
    for wide, taps in zip(larger, (offset, mask)):
        grad, same = (
            torch.autograd.grad(out, wide, upstream, True)[0],
            torch.autograd.grad(expected, taps, upstream, True)[0],
        )
        torch.testing.assert_close(grad.flatten()[: same.numel()], same.flatten())
        assert grad.flatten()[same.numel() :].abs().max() == 0


@on_every_device
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_deformable_convolution_in_half_precision(device, dtype):
    inputs = [tensor.detach().to(dtype).requires_grad_() for tensor in conv_inputs(device, {})]
    maps, offset, weight, mask, _ = inputs
    out = ops.modulated_deform_conv2d(maps, offset, mask, weight)
    same = ops.modulated_deform_conv2d(*(tensor.float() for tensor in (maps, offset, mask, weight)))
    assert out.dtype == dtype
    torch.testing.assert_close(out, same.to(dtype))
    for grad, expected in zip(torch.autograd.grad(out.sum(), inputs[:4]), torch.autograd.grad(same.sum(), inputs[:4])):
        assert grad.dtype == dtype
        torch.testing.assert_close(grad, expected, atol=0.05, rtol=0.05)
