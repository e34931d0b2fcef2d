"""Deformable convolution of ``mmcv._ext`` on torchvision, for every device.

Names, arguments and in-place outputs are those that ``mmcv.ops`` calls. Float16 and bfloat16 are computed in
float32 and written back in the dtype of the output; float64 stays float64.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision import ops as vision

from visionpe.detection.operators.boxes import gradients, wide


def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor, **sizes: int
) -> None:
    """Deformable convolution (Dai et al. 2017, arXiv 1703.06211).

    Args:
        input: (B, C, H, W).
        weight: (O, C / groups, kH, kW).
        offset: (B, G * kH * kW * 2, H', W'): y and x of each tap in each of G deformable groups, in pixels.
        output: (B, O, H', W'), written in place.
        columns: Unused buffer.
        ones: Unused buffer.
        sizes: ``dH``, ``dW`` stride, ``padH``, ``padW`` padding, ``dilationH``, ``dilationW``; the rest is unused.
    """
    output.copy_(_plain_conv(sizes)(wide(input), wide(offset), wide(weight)))


def _plain_conv(sizes: dict[str, int]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    pairs = [(sizes[f"{name}H"], sizes[f"{name}W"]) for name in ("d", "pad", "dilation")]
    return lambda values, offset, weight: vision.deform_conv2d(values, offset, weight, None, *pairs)


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    columns: Tensor,
    **sizes: int,
) -> None:
    """Gradients of ``deform_conv_forward`` for the input and the offsets, written in place."""
    kernel = wide(weight)
    found = gradients(
        lambda values, shift: _plain_conv(sizes)(values, shift, kernel), (wide(input), wide(offset)), wide(grad_output)
    )
    grad_input.copy_(found[0])
    grad_offset.copy_(found[1])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    columns: Tensor,
    ones: Tensor,
    scale: float = 1,
    **sizes: int,
) -> None:
    """Gradient of ``deform_conv_forward`` for the weight, times ``scale``, written in place."""
    values, shift = wide(input), wide(offset)
    # The derivative is linear in the weight, so any weight will do.
    kernel = values.new_zeros(grad_weight.shape)
    found = gradients(lambda kernel: _plain_conv(sizes)(values, shift, kernel), (kernel,), wide(grad_output))
    grad_weight.copy_(scale * found[0])


def _modulated_conv(sizes: dict[str, int], size: torch.Size) -> Callable[..., Tensor]:
    """Return the convolution for an output of ``size`` (H', W')."""
    pairs = [(sizes[f"{name}_h"], sizes[f"{name}_w"]) for name in ("stride", "pad", "dilation")]

    def fitted(taps: Tensor) -> Tensor:
        # mmcv reads memory, not maps: of offsets larger than the output (DyHead) the first numbers count.
        return taps.flatten(1)[:, : taps.shape[1] * size.numel()].unflatten(1, (taps.shape[1], *size))

    def conv(values: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return vision.deform_conv2d(values, fitted(offset), weight, bias, *pairs, mask=fitted(mask))

    return conv


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    with_bias: bool,
    **sizes: int,
) -> None:
    """Modulated deformable convolution (Zhu et al. 2018, arXiv 1811.11168).

    Args:
        input: (B, C, H, W).
        weight: (O, C / groups, kH, kW).
        bias: (O,), used if ``with_bias``.
        ones: Unused buffer.
        offset: (B, G * kH * kW * 2, H', W'), as for ``deform_conv_forward``.
        mask: (B, G * kH * kW, H', W'), a factor for each tap.
        output: (B, O, H', W'), written in place.
        columns: Unused buffer.
        with_bias: See ``bias``.
        sizes: ``stride_h``, ``stride_w``, ``pad_h``, ``pad_w``, ``dilation_h``, ``dilation_w``; the rest is unused.
    """
    inputs = (input, offset, mask, weight, bias) if with_bias else (input, offset, mask, weight)
    output.copy_(_modulated_conv(sizes, output.shape[2:])(*map(wide, inputs)))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    with_bias: bool,
    **sizes: int,
) -> None:
    """Gradients of ``modulated_deform_conv_forward``, written to the ``grad_`` tensors."""
    inputs, outs = [input, offset, mask, weight], [grad_input, grad_offset, grad_mask, grad_weight]
    if with_bias:
        inputs, outs = inputs + [bias], outs + [grad_bias]
    found = gradients(
        _modulated_conv(sizes, grad_output.shape[2:]), [wide(tensor) for tensor in inputs], wide(grad_output)
    )
    for out, grad in zip(outs, found):
        out.copy_(grad)
