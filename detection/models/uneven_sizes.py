"""Necks and heads of mmdet that count on even maps, at image sizes that the largest stride does not divide."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

# They join a map with one of twice its size, and fail where the other has a row less.
DOUBLING = ("CSPNeXtPAFPN", "YOLOXPAFPN", "YOLOV3Neck", "HRFPN")
# They join a map with one of half its size rounded up, and fail where it was rounded down, as ViTDet's pyramid does.
HALVING = ("PAFPN", "DyHead")


def _padded(maps: Tensor, height: int, width: int) -> Tensor:
    """Zeros below and right."""
    return F.pad(maps, (0, width - maps.shape[-1], 0, height - maps.shape[-2]))


def _even(maps: Sequence[Tensor]) -> list[Tensor]:
    """Maps, finest first, padded with zeros below and right until each has twice the size of the next."""
    steps = [2 ** (len(maps) - 1 - level) for level in range(len(maps))]
    height, width = (max(-(-each.shape[axis] // step) for each, step in zip(maps, steps)) for axis in (-2, -1))
    return [_padded(each, height * step, width * step) for each, step in zip(maps, steps)]


def _rounded_up(maps: Sequence[Tensor]) -> list[Tensor]:
    """Maps, finest first, padded with zeros below and right to half of the one before at least."""
    fitted = list(maps[:1])
    for each in maps[1:]:
        height, width = (max(each.shape[axis], -(-fitted[-1].shape[axis] // 2)) for axis in (-2, -1))
        fitted.append(_padded(each, height, width))
    return fitted


def _fitted(forward: Any, fit: Callable[[Sequence[Tensor]], list[Tensor]]) -> Any:
    """The same forward pass on maps that fit; levels that come in go out in the size they had."""

    @functools.wraps(forward)
    def run(self: Any, inputs: Sequence[Tensor], *args: Any, **kwargs: Any) -> Any:
        fitted = fit(inputs)
        if all(new.shape == old.shape for new, old in zip(fitted, inputs)):
            return forward(self, inputs, *args, **kwargs)
        outputs = forward(self, tuple(fitted), *args, **kwargs)
        grown = {new.shape[-2:]: old.shape[-2:] for new, old in zip(fitted, inputs)}
        sizes = [grown.get(each.shape[-2:], each.shape[-2:]) for each in outputs]
        return tuple(each[..., : size[0], : size[1]] for each, size in zip(outputs, sizes))

    return run


def _with_whole_masks(loss: Any) -> Any:
    """The same loss on true masks of the area that the predicted ones cover; it takes every so many pixels of them."""

    @functools.wraps(loss)
    def run(self: Any, mask_feats: Tensor, kernels: Any, sampled: Any, batch_gt_instances: Any) -> Any:
        across, down = self.prior_generator.strides[0]
        size = mask_feats.shape[-2] * down, mask_feats.shape[-1] * across
        for truth in batch_gt_instances:
            if truth.masks.shape[-2] < size[0] or truth.masks.shape[-1] < size[1]:
                truth.masks = _padded(truth.masks, *(max(pair) for pair in zip(size, truth.masks.shape[-2:])))
        return loss(self, mask_feats, kernels, sampled, batch_gt_instances)

    return run


def _wrap(module: str, name: str, method: str, wrapper: Any) -> None:
    """Put a method of mmdet into ``wrapper``, once, where its module is imported."""
    owner = getattr(sys.modules.get(module), name, None)
    if owner is not None and not hasattr(getattr(owner, method), "__wrapped__"):
        setattr(owner, method, wrapper(getattr(owner, method)))


def install() -> None:
    """Let the necks and heads that are imported take any sizes; where they ran before nothing changes."""
    for fit, names in ((_even, DOUBLING), (_rounded_up, HALVING)):
        for name in names:
            _wrap("mmdet.models.necks", name, "forward", functools.partial(_fitted, fit=fit))
    _wrap("mmdet.models.dense_heads", "RTMDetInsHead", "loss_mask_by_feat", _with_whole_masks)
