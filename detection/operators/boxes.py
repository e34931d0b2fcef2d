"""The box and loss operators of ``mmcv._ext`` on torchvision and plain PyTorch, for every device.

Names, arguments and in-place outputs are those that ``mmcv.ops`` calls. Float16 and bfloat16 are computed in
float32 and written back in the dtype of the output; float64 stays float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import ops as vision


def wide(tensor: Tensor) -> Tensor:
    """Return ``tensor`` in the dtype it is computed in: float64 as it is, any other as float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def gradients(function: Callable[..., Tensor], inputs: Sequence[Tensor], grad_output: Tensor) -> tuple[Tensor, ...]:
    """Return the gradients of ``function(*inputs)`` for each input: the forward pass is run again."""
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        output = function(*leaves)
        if not output.requires_grad:  # of nothing: no image, no box
            return tuple(map(torch.zeros_like, leaves))
        return torch.autograd.grad(output, leaves, grad_output, allow_unused=True, materialize_grads=True)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the indices that greedy non-maximum suppression keeps, best score first.

    Args:
        boxes: (N, 4), corners x1, y1, x2, y2 in pixels.
        scores: (N,).
        iou_threshold: Boxes that overlap a better one by more than this are dropped.
        offset: 0, or 1 where x2 and y2 are the last pixel inside: a width is ``x2 - x1 + offset``.
    """
    corners = wide(boxes)
    if offset:
        corners = corners + corners.new_tensor([0, 0, offset, offset])
    return vision.nms(corners, scores.to(corners.dtype), iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (Bodla et al. 2017, arXiv 1704.04503): the score falls with the overlap instead of to zero.

    A box is discarded when its lowered score falls below ``min_score``; the best box of all is always kept.

    Args:
        boxes: (N, 4), corners in pixels.
        scores: (N,).
        dets: (N, 5), written in place: the first K rows get the kept boxes with their lowered scores.
        iou_threshold: Overlap from which the naive and the linear rule act.
        sigma: Width of the Gaussian rule, ``exp(-iou^2 / sigma)``.
        min_score: See above.
        method: 0 naive (to zero), 1 linear (times ``1 - iou``), 2 Gaussian.
        offset: As for ``nms``.

    Returns:
        (K,) indices into ``boxes`` in the order kept.
    """
    # numpy: thousands of small steps, each too short for torch's overhead
    corners = wide(boxes).detach().cpu().numpy().T  # (4, N)
    score = wide(scores).to(wide(boxes).dtype).detach().cpu().numpy()
    area = (corners[2] - corners[0] + offset) * (corners[3] - corners[1] + offset)
    index: np.ndarray = np.arange(len(score))
    kept, lowered_scores = [], []
    with np.errstate(invalid="ignore", divide="ignore"):
        while len(index):
            best = score.argmax()
            kept.append(index[best])
            lowered_scores.append(score[best])
            left, top = np.maximum(corners[:2], corners[:2, best, None])
            right, bottom = np.minimum(corners[2:], corners[2:, best, None])
            shared = np.maximum(right - left + offset, 0) * np.maximum(bottom - top + offset, 0)
            iou = shared / (area[best] + area - shared)
            if method == 2:
                score = score * np.exp(-iou * iou / sigma)
            else:
                score = np.where(iou >= iou_threshold, score * (1 - iou) if method == 1 else 0, score)
            stay = ~(score < min_score)
            stay[best] = False
            corners, score, area, index = corners[:, stay], score[stay], area[stay], index[stay]
    order = torch.tensor(np.array(kept, np.int64), device=boxes.device)
    dets[: len(kept), :4] = boxes[order]
    dets[: len(kept), 4] = torch.tensor(np.array(lowered_scores), dtype=dets.dtype, device=dets.device)
    return order


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of boxes: each that NMS keeps, and after it those that it suppresses, best score first.

    Args:
        dets: (N, 5), corners in pixels and score.
        iou_threshold: Boxes that overlap a better one by this or more fall to its group.

    Returns:
        Indices of boxes by group, the group of the best box first.
    """
    left, top, right, bottom, score = wide(dets).detach().cpu().numpy().T  # numpy, as in softnms
    area = (right - left) * (bottom - top)
    order, groups = np.argsort(-score, kind="stable"), []
    with np.errstate(invalid="ignore", divide="ignore"):
        while len(order):
            best, rest = order[0], order[1:]
            width = np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest])
            height = np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest])
            shared = np.maximum(width, 0) * np.maximum(height, 0)
            near = shared / (area[best] + area[rest] - shared) >= iou_threshold
            groups.append([int(best), *map(int, rest[near])])
            order = rest[~near]
    return groups


def _class_weight(target: Tensor, weight: Tensor, like: Tensor) -> Tensor:
    """Return (N, 1): the weight of each target's class; 1 without weights and for the background."""
    if not weight.numel():
        return like.new_ones(1, 1)
    known = (target >= 0) & (target < len(weight))
    return torch.where(known, weight.to(like.dtype)[target.clamp(0, len(weight) - 1)], 1)[:, None]


def _is_class(target: Tensor, logits: Tensor) -> Tensor:
    """Return (N, C) bool: whether the target is the class; all False for the background."""
    return target[:, None] == torch.arange(logits.shape[1], device=target.device)


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Sigmoid focal loss (Lin et al. 2017, arXiv 1708.02002, eq. 5), a number for each example and class.

    Args:
        input: (N, C) logits.
        target: (N,) class, 0 to C - 1; C (or any other) for the background.
        weight: (C,) weight of each target's class, or empty. The background has weight 1.
        output: (N, C), written in place.
        gamma: Focusing exponent, at least 0.
        alpha: Weight of the positive class, 0 to 1; the negative one has ``1 - alpha``.
    """
    logits = wide(input)
    positive = _is_class(target, logits).to(logits.dtype)
    loss = vision.sigmoid_focal_loss(logits, positive, alpha=alpha, gamma=gamma)
    output.copy_(loss * _class_weight(target, weight, logits))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Derivative of the sum of ``sigmoid_focal_loss_forward``, written to ``grad_input`` (N, C)."""
    logits = wide(input)
    positive = _is_class(target, logits)
    signed = torch.where(positive, logits, -logits)
    p = signed.sigmoid()  # probability of what is true
    # d/dx of -(1-p)^gamma log(p); in closed form it stays finite where p is 1 and gamma below 1
    slope = (1 - p) ** gamma * (gamma * p * F.logsigmoid(signed) - (1 - p))
    slope = torch.where(positive, alpha * slope, (alpha - 1) * slope)
    grad_input.copy_(slope * _class_weight(target, weight, logits))
