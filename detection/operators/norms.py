"""Synchronised batch normalisation of ``mmcv._ext`` (``MMSyncBN``) on plain PyTorch, for every device.

Names, arguments and in-place outputs are those that ``mmcv.ops`` calls; it does the talking between processes.
Statistics are float32; maps of float16 are computed in it.
"""

from __future__ import annotations

from torch import Tensor

from visionpe.detection.operators.boxes import wide

SPREAD = (0, 2)  # over images and pixels


def sync_bn_forward_mean(input: Tensor, mean: Tensor) -> None:
    """Mean of each channel of ``input`` (B, C, N), written to ``mean`` (C,)."""
    mean.copy_(wide(input).mean(SPREAD))


def sync_bn_forward_var(input: Tensor, mean: Tensor, var: Tensor) -> None:
    """Mean square distance of each channel of ``input`` (B, C, N) from ``mean`` (C,), written to ``var`` (C,)."""
    var.copy_((wide(input) - mean[:, None]).square().mean(SPREAD))


def sync_bn_forward_output(
    input: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    norm: Tensor,
    std: Tensor,
    output: Tensor,
    eps: float,
    momentum: float | Tensor,
    group_size: int,
) -> None:
    """Normalise by the statistics of all processes, and carry the running ones on.

    Args:
        input: (B, C, N).
        mean: (C,) over all processes.
        var: (C,) over all processes.
        weight: (C,).
        bias: (C,).
        running_mean: (C,), updated in place.
        running_var: (C,), updated in place, by the unbiased variance.
        norm: (B, C, N), written in place: before weight and bias.
        std: (C,), written in place: ``sqrt(var + eps)``.
        output: (B, C, N), written in place.
        eps: Added to the variance.
        momentum: Share of this batch in the running statistics.
        group_size: Processes, each with as many numbers.
    """
    std.copy_((var + eps).sqrt())
    norm.copy_((wide(input) - mean[:, None]) / std[:, None])
    output.copy_(norm * weight[:, None] + bias[:, None])
    count = len(input) * input.shape[2] * group_size
    running_mean.copy_(momentum * mean + (1 - momentum) * running_mean)
    running_var.copy_(momentum * var * (count / max(count - 1, 1)) + (1 - momentum) * running_var)


def sync_bn_backward_param(grad_output: Tensor, norm: Tensor, grad_weight: Tensor, grad_bias: Tensor) -> None:
    """Gradients of the weight and the bias, written to ``grad_weight`` and ``grad_bias`` (C,)."""
    grad_weight.copy_((wide(grad_output) * norm).sum(SPREAD))
    grad_bias.copy_(wide(grad_output).sum(SPREAD))


def sync_bn_backward_data(
    grad_output: Tensor,
    weight: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    norm: Tensor,
    std: Tensor,
    grad_input: Tensor,
) -> None:
    """Gradient of the maps, written to ``grad_input`` (B, C, N); the other two are means over the processes."""
    count = len(norm) * norm.shape[2]
    through = (norm * grad_weight[:, None] + grad_bias[:, None]) / count  # by way of the statistics
    grad_input.copy_((weight / std)[:, None] * (wide(grad_output) - through))
