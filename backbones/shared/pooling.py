"""Pooling of maps of any size, and attention whose queries are pooled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from visionpe.backbones.shared.encoded import encoded_attention
from visionpe.backbones.shared.partition import Partition
from visionpe.backbones.shared.windowed import WindowHeads
from visionpe.backbones.shared.windows import Pair
from visionpe.tracing import is_exporting, map_size


def pool_map(x: Tensor, stride: Pair, how: Literal["max", "mean"] = "max") -> Tensor:
    """Pool cells of a map; the last ones hold what is left, where the stride does not divide it.

    Args:
        x: ``(B, height, width, C)``.
        stride: Height and width of a cell, tokens.
        how: The largest value of a cell, or their mean.

    Returns:
        ``(B, height / stride, width / stride, C)``, rounded up.
    """
    if stride == (1, 1):
        return x
    (height, width), (down, right) = map_size(x), stride
    rows, columns = (height + down - 1) // down, (width + right - 1) // right
    blank = float("-inf") if how == "max" else 0.0
    # An exported graph serves every size, so it cannot branch on one.
    pads = is_exporting() or height % down or width % right
    cells = F.pad(x, (0, 0, 0, columns * right - width, 0, rows * down - height), value=blank) if pads else x
    cells = cells.unflatten(2, (columns, right)).unflatten(1, (rows, down))  # (B, rows, down, columns, right, C)
    if how == "max":
        return cells.amax(2).amax(3)  # one axis after the other is twenty times faster on a CPU
    if not pads:
        return cells.mean(2).mean(3)
    counts = [_counts(n, s, x) for n, s in zip((height, width), stride)]
    return cells.sum(2).sum(3) / (counts[0][:, None] * counts[1])[..., None]


def _counts(length: int, stride: int, x: Tensor) -> Tensor:
    """Tokens in each cell along an axis."""
    first = torch.arange((length + stride - 1) // stride, device=x.device) * stride
    return (length - first).clamp(max=stride).to(x.dtype)


class PooledHeads(WindowHeads):
    """Mixin of attentions in windows of a map whose queries may be pooled: the result is a smaller map.

    Attributes:
        pooling: By how many tokens, along each axis; a window is a multiple.
    """

    pooling: Pair = (1, 1)

    def forward(self, x: Tensor, partitions: Sequence[Partition]) -> Tensor:
        """Attend: ``(B, height, width, dim)`` to ``(B, height', width', dim_out)``, rounded up."""
        (cut,) = partitions
        if cut.queries is None:
            return super().forward(x, partitions)
        q, k, v = self._pooled(x, cut)
        mask = cut.mask if cut.mask is None or x.shape[0] == 1 else cut.mask.repeat(x.shape[0], 1, 1, 1)
        attended = encoded_attention(
            q, k, v, cut.encoding, cut.grid, layer=cut.layer, mask=mask, attended=self.attended, scale=self.logit_factor
        )
        return self.projected(cut.queries.join(attended.transpose(1, 2).flatten(2)), None)

    def _pooled(self, x: Tensor, cut: Partition) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled queries, keys and values, ``(B * windows, heads, tokens, head_dim)``, after which the map is free."""
        assert cut.queries is not None
        if self.padding == "tokens":  # the padding holds the biases of the projection
            qkv = self.projections(cut.windows.split(x))  # (B * windows, tokens, 3, heads, head_dim)
            queries, kv = cut.windows.join(qkv[:, :, 0].flatten(2)), qkv[:, :, 1:]
        else:
            qkv = self.projections(x)
            queries, kv = qkv[..., 0, :, :].flatten(3), cut.windows.split(qkv[..., 1:, :, :])
        # On the map, not in the windows, so that no cell holds padding.
        q = cut.queries.split(pool_map(queries, self.pooling)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)  # (B * windows, heads, tokens, head_dim)
        return (*self.compared(q, k), v)
