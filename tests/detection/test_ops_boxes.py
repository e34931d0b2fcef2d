"""NMS, soft-NMS and focal loss of the stand-in against slow loops written here: values, gradients, dtypes."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from ops_checks import HALVES, double, needs_stand_in, on_every_device, tolerance  # isort: skip
from mmcv import ops  # isort: skip  after the stand-in

pytestmark = needs_stand_in


def some_boxes(count, extent=40.0):
    corner, size = torch.rand(count, 2) * extent, torch.rand(count, 2) * 20 + 1
    return torch.cat([corner, corner + size], 1)


def overlap(a, b, offset):
    width = min(a[2], b[2]) - max(a[0], b[0]) + offset
    height = min(a[3], b[3]) - max(a[1], b[1]) + offset
    shared = max(0.0, width) * max(0.0, height)
    areas = [(c[2] - c[0] + offset) * (c[3] - c[1] + offset) for c in (a, b)]
    return shared / (sum(areas) - shared)


def slow_nms(boxes, scores, threshold, offset):
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(overlap(boxes[i], boxes[j], offset) <= threshold for j in kept):
            kept.append(i)
    return kept


def slow_soft_nms(boxes, scores, threshold, sigma, min_score, method, offset):
    left, kept = dict(enumerate(scores)), []
    while left:
        best = max(left, key=left.get)
        kept.append((best, left.pop(best)))
        for i in list(left):
            iou = overlap(boxes[best], boxes[i], offset)
            over = iou >= threshold
            factor = {"naive": 1 - over, "linear": 1 - iou * over, "gaussian": math.exp(-(iou**2) / sigma)}[method]
            left[i] *= factor
            if left[i] < min_score:
                del left[i]
    return kept


@on_every_device
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.8])
def test_nms_keeps_what_the_loops_keep(device, offset, threshold):
    for count in (1, 2, 30, 80):
        boxes, scores = some_boxes(count).to(device), torch.rand(count, device=device)
        dets, kept = ops.nms(boxes, scores, threshold, offset=offset)
        assert kept.tolist() == slow_nms(boxes.tolist(), scores.tolist(), threshold, offset)
        assert torch.equal(dets, torch.cat([boxes, scores[:, None]], 1)[kept])


def test_nms_offset_decides_near_the_threshold():
    boxes, scores = torch.tensor([[0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 2.0, 1.0]]), torch.tensor([0.9, 0.8])
    assert len(ops.nms(boxes, scores, 0.3, offset=0)[1]) == 2  # they only touch
    assert len(ops.nms(boxes, scores, 0.3, offset=1)[1]) == 1  # two pixels wide each, one shared


@pytest.mark.parametrize("dtype", [*HALVES, torch.float64])
def test_nms_takes_any_float_and_numpy(dtype):
    boxes, scores = some_boxes(40).to(dtype), (torch.randperm(40) / 64).to(dtype)
    dets, kept = ops.nms(boxes, scores, 0.4)
    assert dets.dtype == dtype
    assert kept.tolist() == slow_nms(boxes.tolist(), scores.tolist(), 0.4, 0)
    if dtype == torch.float64:
        assert np.array_equal(ops.nms(boxes.numpy(), scores.numpy(), 0.4)[1], kept.numpy())


@on_every_device
def test_batched_nms_is_nms_within_each_class(device):
    boxes, scores = some_boxes(60).to(device), torch.rand(60, device=device)
    labels = torch.randint(0, 3, (60,), device=device)
    expected = []
    for label in range(3):
        members = (labels == label).nonzero()[:, 0]
        kept = slow_nms(boxes[members].tolist(), scores[members].tolist(), 0.5, 0)
        expected += members[kept].tolist()
    for split in (10_000, 10):
        kept = ops.batched_nms(boxes, scores, labels, dict(type="nms", iou_threshold=0.5, split_thr=split))[1].tolist()
        assert kept == sorted(expected, key=lambda i: -scores[i])


@on_every_device
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
def test_soft_nms_lowers_scores_as_the_loops_do(device, method, offset):
    for min_score in (1e-3, 0.3):
        boxes, scores = some_boxes(40).to(device), torch.rand(40, device=device)
        dets, kept = ops.soft_nms(boxes, scores, 0.3, 0.4, min_score, method, offset)
        expected = slow_soft_nms(boxes.tolist(), scores.tolist(), 0.3, 0.4, min_score, method, offset)
        assert kept.tolist() == [i for i, _ in expected]
        assert torch.equal(dets[:, :4], boxes[kept])
        assert dets[:, 4].tolist() == pytest.approx([score for _, score in expected], abs=1e-6)


def test_soft_nms_naive_is_nms_and_the_best_box_always_stays():
    boxes, scores = some_boxes(50), torch.rand(50) + 0.1
    assert torch.equal(ops.soft_nms(boxes, scores, 0.5, method="naive")[1], ops.nms(boxes, scores, 0.5)[1])
    assert ops.soft_nms(boxes[:1], torch.tensor([1e-6]), min_score=0.5)[1].tolist() == [0]


@on_every_device
def test_empty_boxes(device):
    nothing, scores = torch.zeros(0, 4, device=device), torch.zeros(0, device=device)
    for op in (ops.nms, ops.soft_nms):
        dets, kept = op(nothing, scores, 0.5)
        assert dets.shape == (0, 5)
        assert kept.shape == (0,)
        assert kept.dtype == torch.long


def slow_focal(logits, target, gamma, alpha, weight=None):
    p = logits.sigmoid()
    rows = []
    for n, label in enumerate(target.tolist()):
        for c in range(logits.shape[1]):
            right, share = (p[n, c], alpha) if c == label else (1 - p[n, c], 1 - alpha)
            known = weight is not None and 0 <= label < logits.shape[1]
            rows.append(-share * (1 - right) ** gamma * right.log() * (weight[label] if known else 1))
    return torch.stack(rows).view_as(logits)


@on_every_device
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_focal_loss_and_its_gradient_are_the_formula(device, gamma, weighted):
    logits, target = double(7, 5, device=device), torch.tensor([0, 4, 5, 2, 2, -1, 1], device=device)  # 5, -1: none
    weight = torch.rand(5, dtype=torch.float64, device=device) if weighted else None
    expected = slow_focal(logits, target, gamma, 0.3, weight)
    for reduction, total in (("none", expected), ("sum", expected.sum()), ("mean", expected.sum() / 7)):
        loss = ops.sigmoid_focal_loss(logits, target, gamma, 0.3, weight, reduction)
        torch.testing.assert_close(loss, total)
        upstream = torch.randn_like(loss)
        torch.testing.assert_close(
            torch.autograd.grad(loss, logits, upstream)[0],
            torch.autograd.grad(total, logits, upstream, retain_graph=True)[0],
        )
    assert gradcheck(lambda x: ops.sigmoid_focal_loss(x, target, gamma, 0.3, weight, "none"), logits, fast_mode=True)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_stays_finite_for_certain_logits(gamma):
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    loss = ops.sigmoid_focal_loss(logits, torch.tensor([0, 0]), gamma, 0.25, None, "none")
    loss.sum().backward()
    torch.testing.assert_close(loss.detach(), torch.tensor([[0.0, 0.0], [50.0, 150.0]]))
    torch.testing.assert_close(logits.grad, torch.tensor([[0.0, 0.0], [-0.25, 0.75]]))


@on_every_device
@pytest.mark.parametrize("dtype", HALVES)
def test_focal_loss_in_half_precision(device, dtype):
    logits = torch.randn(6, 4, device=device).to(dtype).requires_grad_()
    target = torch.tensor([0, 1, 2, 3, 4, 0], device=device)
    loss = ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, None, "none")
    assert loss.dtype == dtype
    same = slow_focal(logits.double(), target, 2.0, 0.25)
    torch.testing.assert_close(loss.double(), same, atol=1e-4, rtol=tolerance(dtype))
    upstream = torch.ones_like(loss)
    grad, expected = torch.autograd.grad(loss, logits, upstream)[0], torch.autograd.grad(same.sum(), logits)[0]
    torch.testing.assert_close(grad, expected, atol=1e-4, rtol=2 * tolerance(dtype))


@on_every_device
def test_mmdets_focal_loss_is_the_same_with_and_without_the_operator(device):
    """On CUDA mmdet's FocalLoss calls the operator, on CPU its own formula."""
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss, sigmoid_focal_loss

    logits, target = double(6, 4, device=device), torch.tensor([0, 1, 2, 3, 4, 0], device=device)
    share = torch.rand(6, dtype=torch.float64, device=device)
    ours = sigmoid_focal_loss(logits, target, share, avg_factor=3.0)
    theirs = py_sigmoid_focal_loss(logits, F.one_hot(target, 5)[:, :4], share, avg_factor=3.0)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, logits), torch.autograd.grad(theirs, logits))


@on_every_device
def test_focal_loss_of_nothing(device):
    logits = torch.zeros(0, 4, device=device, requires_grad=True)
    loss = ops.sigmoid_focal_loss(logits, torch.zeros(0, dtype=torch.long, device=device), 2.0, 0.25, None, "sum")
    loss.backward()
    assert loss == 0
    assert logits.grad.shape == (0, 4)


@on_every_device
@pytest.mark.parametrize("threshold", [0.1, 0.5, 1.0])
def test_nms_match_groups_boxes_with_what_they_suppress(device, threshold):
    boxes = torch.cat([some_boxes(40), torch.tensor([[3.0, 3, 9, 9], [3, 3, 9, 9], [5, 5, 5, 5], [5, 5, 5, 5]])])
    dets = torch.cat([boxes, torch.rand(len(boxes), 1)], 1)
    left, expected = sorted(range(len(dets)), key=lambda i: -dets[i, 4]), []
    while left:
        first, *rest = left
        # of two points nothing is shared
        near = [i for i in rest if boxes[i, 2] > boxes[i, 0] and slow_overlap(boxes, first, i) >= threshold]
        expected.append([first, *near])
        left = [i for i in rest if i not in near]
    groups = ops.nms_match(dets.to(device), threshold)
    assert [group.tolist() for group in groups] == expected
    assert [group.tolist() for group in ops.nms_match(dets.numpy(), threshold)] == expected
    assert ops.nms_match(dets[:0], threshold) == []


def slow_overlap(boxes, i, j):
    return overlap(boxes[i].tolist(), boxes[j].tolist(), 0) if boxes[i, 2] > boxes[i, 0] else 0.0
