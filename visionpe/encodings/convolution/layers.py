"""Depthwise convolutions that know what they were trained at, as layers: hooks of a layer fire when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from visionpe.policy.functions import convolve
from visionpe.policy.grammar import PolicyTerm
from visionpe.sparse import Neighbourhood
from visionpe.tracing import is_exporting


class SizedConv2d(nn.Conv2d):
    """A depthwise convolution of maps, odd kernel, zeros beyond the border.

    Args:
        dim: Channels.
        kernel_size: Side of the kernel in tokens.
        factory: ``device`` and ``dtype``.
    """

    def __init__(self, dim: int, kernel_size: int, **factory: Any) -> None:
        super().__init__(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim, **factory)

    def forward(
        self,
        x: Tensor,
        trained: Sequence[int] = (),
        policy: PolicyTerm | None = None,
        size: Sequence[int] | None = None,
    ) -> Tensor:
        """See :func:`~visionpe.policy.functions.convolve`; no policy is ``extrapolate``."""
        if policy and policy.name != "extrapolate":
            return convolve(x, self.weight, self.bias, trained, policy, size=size)
        if not is_exporting() and 1 in x.shape[-2:]:
            return _line(x, self)
        return super().forward(x)


class SizedConv3d(nn.Conv3d):
    """The same of volumes, ``(B, dim, time, height, width)``, or of sparse voxels."""

    def __init__(self, dim: int, kernel_size: int, **factory: Any) -> None:
        super().__init__(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim, **factory)

    def forward(
        self,
        x: Tensor,
        trained: Sequence[int] = (),
        policy: PolicyTerm | None = None,
        around: Neighbourhood | None = None,
    ) -> Tensor:
        """See :func:`~visionpe.policy.functions.convolve`.

        Args:
            x: The volume, or the voxels ``(N, dim)``.
            trained, policy: Of a volume.
            around: The cells around each voxel: those that hold none count as zero, like the border of a map.
        """
        if around is None:
            return convolve(x, self.weight, self.bias, trained, policy or "extrapolate")
        assert self.bias is not None
        weight, width = self.weight[:, 0].to(x.dtype), self.kernel_size[0]  # (dim, width, width, width)
        out = self.bias.to(x.dtype).expand_as(x)
        for step, (here, there) in zip(around.steps, around.pairs):
            place: Any = (slice(None), *(n + width // 2 for n in step))
            out = out.index_add(0, here, x[there] * weight[place])
        return out


def _line(values: Tensor, conv: nn.Conv2d) -> Tensor:
    """``conv`` of a map one token wide or high, ``(B, dim, height, width)``, by the taps that it can reach."""
    weight, reach, upright = conv.weight, conv.kernel_size[0] // 2, values.shape[-1] == 1
    if upright:  # laid down it is faster; a transpose would hide that channels come last
        weight, values = weight.transpose(2, 3), values.squeeze(3).unsqueeze(2)
    weight = weight[:, :, reach : reach + 1]
    line = F.conv2d(values, weight, conv.bias, padding=(0, reach), groups=conv.groups)
    return line.squeeze(2).unsqueeze(3) if upright else line
