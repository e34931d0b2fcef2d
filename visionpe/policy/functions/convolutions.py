"""Convolutions over a map at a size that was not trained."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from operator import index

import torch
import torch.nn.functional as F
from torch import Tensor

from visionpe.policy.functions.matrices import multiply
from visionpe.policy.functions.positions import POSITION_POLICIES, is_trained_size
from visionpe.policy.functions.tables import resize_map
from visionpe.policy.functions.terms import as_term, refuse_export
from visionpe.policy.grammar import PolicyTerm
from visionpe.precision import wide_dtype

CONVOLUTION_POLICIES = (*POSITION_POLICIES, "native")
CONVS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def stretch(kernel_size: int, size: int, trained: int, like: Tensor, power: float = 1.0) -> Tensor:
    """How the taps of a kernel spread over the tokens when a step is ``(size / trained) ** power`` tokens long.

    A tap that falls between two tokens is shared between them linearly, so that an integer ratio is a dilation and
    the ratio one is the identity.

    Returns:
        ``(2 reach + 1, kernel_size)``, reach the whole tokens that the stretched kernel needs on either side.
    """
    half = kernel_size // 2
    wide = wide_dtype(like)
    taps = torch.arange(kernel_size, device=like.device, dtype=wide) - half
    if power == 1:  # in whole numbers, which may be symbols of an exported graph
        reach, taps = -(-half * size // trained), taps * size / trained  # rounded up
    else:
        step = (index(size) / trained) ** power
        reach, taps = ceil(half * step - 1e-6), taps * step
    offsets = torch.arange(2 * reach + 1, device=like.device, dtype=wide) - reach
    return (1 - (offsets[:, None] - taps).abs()).clamp(min=0).to(like.dtype)


def stretched_kernel(weight: Tensor, size: Sequence[int], trained: Sequence[int], power: float = 1.0) -> Tensor:
    """A kernel that spans as much of the image as in training, or less by a power.

    Source: dilation by the ratio of the sizes, as in "Multi-Scale Context Aggregation by Dilated Convolutions", arXiv
    1511.07122, section 2, for ratios that are not whole too.

    Args:
        weight: ``(dim, 1, *kernel)``, odd sides.
        size, trained: Tokens along each axis, now and in training.
        power: Of their ratio.

    Returns:
        ``(dim, 1, *sides)``, odd sides.
    """
    wide = weight.to(wide_dtype(weight))
    sides = [(axis, n, m) for axis, (n, m) in enumerate(zip(size, trained), start=2) if not is_trained_size(n, m)]
    return multiply(weight, {axis: stretch(weight.shape[axis], n, m, wide, power) for axis, n, m in sides})


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    trained: Sequence[int],
    policy: str | PolicyTerm = "extrapolate",
    size: Sequence[int] | None = None,
) -> Tensor:
    """A depthwise convolution, zeros beyond the border, that knows what it was trained at.

    Args:
        x: ``(B, dim, *axes)``.
        weight: ``(dim, 1, *kernel)``, odd sides.
        bias: ``(dim,)``, or None.
        trained: Tokens along each axis in training.
        policy: ``extrapolate`` convolves as it is; ``interpolate`` stretches the kernel by the ratio of the sizes (a
            dilation where that is whole), ``rescale(a)`` by its power a; ``native`` resizes the map to the trained
            size (bilinear, antialiased), convolves, and resizes the result back (bilinear).
        size: Tokens along each axis of the whole map, where ``x`` is a piece of it. Default: those of ``x``.

    Returns:
        Like ``x``.
    """
    own = tuple(x.shape[2:])
    size = own if size is None else tuple(size)
    choice = as_term(policy, CONVOLUTION_POLICIES)
    if choice.name in ("native", "rescale"):
        refuse_export(choice, POSITION_POLICIES[:2], (*own, *size))
    if choice.name == "native":
        small = tuple(trained)
        if size != own:  # a window is resized as its map would be
            small = tuple(max(1, round(index(n) * t / index(m))) for n, t, m in zip(own, trained, size))
        if not is_trained_size(own, small):
            inside = convolve(resize_map(x, small, "bilinear_antialias"), weight, bias, small)
            return resize_map(inside, own, "bilinear")
    elif choice.name != "extrapolate":
        weight = stretched_kernel(weight, size, trained, choice.number() if choice.name == "rescale" else 1.0)
    padding = [side // 2 for side in weight.shape[2:]]
    return CONVS[len(own)](x, weight, bias, padding=padding, groups=len(weight))
