"""Operators on maps and masks of the stand-in against slow loops: CARAFE, PSA masks, masked convolution."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from ops_checks import HALVES, double, needs_stand_in, on_every_device, tolerance  # isort: skip
from mmcv import ops  # isort: skip  after the stand-in

pytestmark = needs_stand_in


def slow_carafe(features, masks, kernel, groups, scale):
    batch, channels, height, width = features.shape
    out = []
    for b, c, y, x in itertools.product(*map(range, (batch, channels, height * scale, width * scale))):
        total, group = features.new_zeros(()), c // (channels // groups)
        for i, j in itertools.product(range(kernel), repeat=2):
            row, column = y // scale + i - kernel // 2, x // scale + j - kernel // 2
            if 0 <= row < height and 0 <= column < width:
                weight = masks[b, (group * kernel + i) * kernel + j, y, x]
                total = total + weight * features[b, c, row, column]
        out.append(total)
    return torch.stack(out).view(batch, channels, height * scale, width * scale)


def assert_same(ours, expected, leaves):
    torch.testing.assert_close(ours, expected)
    upstream = torch.randn_like(expected)
    for mine, theirs in zip(
        torch.autograd.grad(ours, leaves, upstream), torch.autograd.grad(expected, leaves, upstream)
    ):
        torch.testing.assert_close(mine, theirs)


@on_every_device
@pytest.mark.parametrize(("kernel", "groups", "scale"), [(3, 2, 2), (5, 1, 3), (1, 1, 1)])
def test_carafe_is_a_weighted_sum_around_the_source(device, kernel, groups, scale):
    features = double(2, 4, 2, 3, device=device)
    masks = double(2, groups * kernel * kernel, 2 * scale, 3 * scale, device=device)
    expected = slow_carafe(features, masks, kernel, groups, scale)
    assert_same(ops.carafe(features, masks, kernel, groups, scale), expected, (features, masks))
    torch.testing.assert_close(ops.carafe_naive(features, masks, kernel, groups, scale), expected)


@on_every_device
@pytest.mark.parametrize("dtype", HALVES)
def test_carafe_in_half_precision(device, dtype):
    pack = ops.CARAFEPack(4, 2).to(device)
    maps = torch.randn(1, 4, 3, 4, device=device)
    masks = torch.rand(1, 25, 6, 8, device=device)
    out = ops.carafe(maps.to(dtype), masks.to(dtype), 5, 1, 2)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), ops.carafe(maps, masks, 5, 1, 2), atol=10 * tolerance(dtype), rtol=0.02)
    assert pack(maps).shape == (1, 4, 6, 8)


def slow_psa(weights, distribute, size):
    batch, _, height, width = weights.shape
    out = weights.new_zeros(batch, height * width, height, width)
    for y, x, i, j in itertools.product(*map(range, (height, width, *size))):
        row, column = y + i - (size[0] - 1) // 2, x + j - (size[1] - 1) // 2
        if 0 <= row < height and 0 <= column < width:
            found = weights[:, i * size[1] + j, y, x]
            if distribute:
                out[:, y * width + x, row, column] = found
            else:
                out[:, row * width + column, y, x] = found
    return out


@on_every_device
@pytest.mark.parametrize("kind", ["collect", "distribute"])
@pytest.mark.parametrize("size", [(3, 5), (2, 4), (7, 9)])
def test_psa_masks_lie_where_the_pixels_are(device, kind, size):
    weights = double(2, size[0] * size[1], 4, 5, device=device)
    out = ops.PSAMask(kind, size)(weights)
    assert_same(out, slow_psa(weights, kind == "distribute", size), (weights,))


def test_gradients_match_finite_differences():
    weights = double(1, 9, 2, 3)
    assert gradcheck(ops.PSAMask("collect", (3, 3)), weights)
    assert gradcheck(lambda *inputs: ops.carafe(*inputs, 3, 1, 2), (double(1, 2, 2, 2), double(1, 9, 4, 4)))


@on_every_device
@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), ((3, 5), (1, 2)), (1, 0)])
def test_masked_convolution_is_a_convolution_at_some_places(device, kernel, padding):
    layer = ops.MaskedConv2d(2, 3, kernel, padding=padding).to(device)
    torch.nn.init.normal_(layer.bias)
    maps, mask = torch.randn(1, 2, 5, 6, device=device), torch.rand(1, 5, 6, device=device) - 0.5
    expected = F.conv2d(maps, layer.weight, layer.bias, padding=padding) * (mask > 0)
    torch.testing.assert_close(layer(maps, mask), expected)
    assert not layer(maps, torch.zeros_like(mask)).any()


@on_every_device
@pytest.mark.parametrize("mode", ["default", "N"])
def test_synchronised_norm_of_one_process_is_a_batch_norm(device, mode, monkeypatch):
    monkeypatch.setattr(ops.sync_bn.dist, "get_world_size", lambda group: 1)
    monkeypatch.setattr(ops.sync_bn.dist, "group", type("group", (), {"WORLD": None}))
    norm, plain = ops.SyncBatchNorm(3, stats_mode=mode).to(device), torch.nn.BatchNorm2d(3).to(device)
    torch.nn.init.normal_(norm.bias)
    plain.load_state_dict(norm.state_dict())
    for _ in range(2):
        maps = torch.randn(2, 3, 4, 5, device=device, requires_grad=True)
        assert_same(norm(maps), plain(maps), (maps,))
        torch.testing.assert_close(norm.state_dict(), plain.state_dict())
    upstream = torch.randn(2, 3, 4, 5, device=device)
    found, expected = (torch.autograd.grad(each(maps), tuple(each.parameters()), upstream) for each in (norm, plain))
    torch.testing.assert_close(found, expected)
    assert norm(maps[:0]).shape == (0, 3, 4, 5)
