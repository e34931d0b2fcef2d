"""Which channels are a pair, and how a pair is turned."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from visionpe.tracing import is_tracing

Layout = Literal["adjacent", "half", "axis_half"]


def rotate_pairs(x: Tensor, rotation: Tensor, layout: Layout = "adjacent", axes: int = 1) -> Tensor:
    """Turn channel pairs: ``(a, b) -> (a cos - b sin, a sin + b cos)``, in at least float32.

    Args:
        x: ``(B, heads, N, head_dim)``.
        rotation: Cosine and sine, with a leading batch axis if they differ: ``(heads or 1, N, head_dim / 2, 2)`` for
            adjacent pairs, ``(heads or 1, N, 2, head_dim / 2)`` for half-split ones.
        layout: Which channels are pair i: ``adjacent`` (2 i, 2 i + 1); ``half`` (i, i + head_dim / 2); ``axis_half``,
            which is ``half`` inside each of ``axes`` chunks. Channels that no chunk holds stand last and do not turn.
        axes: Chunks of layout ``axis_half``.

    Returns:
        Like ``x``, in the dtype of ``x``.
    """
    if layout == "half":
        (a, b), (cos, sin) = x.to(rotation.dtype).chunk(2, dim=-1), rotation.unbind(-2)
        return torch.cat((torch.addcmul(a * cos, b, sin, value=-1), torch.addcmul(b * cos, a, sin)), dim=-1).to(x.dtype)
    if layout == "axis_half":
        return _rotate_chunks(x, rotation, axes)
    pairs = x.to(rotation.dtype).unflatten(-1, (-1, 2))  # (B, heads, N, head_dim / 2, 2)
    if is_tracing():  # the compiler fuses real arithmetic, but no complex one
        (a, b), (cos, sin) = pairs.unbind(-1), rotation.unbind(-1)
        turned = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1)
    else:  # one pass over memory, several times faster
        if pairs.stride(-1) != 1 or any(step % 2 for step in pairs.stride()[:-1]):  # as another encoding left it
            pairs = pairs.contiguous()
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(rotation))
    return turned.flatten(-2).to(x.dtype)


def _rotate_chunks(x: Tensor, rotation: Tensor, axes: int) -> Tensor:
    bands = rotation.shape[-1] // axes
    turning = 2 * bands * axes  # channels
    chunks = x[..., :turning].to(rotation.dtype).unflatten(-1, (axes, 2, bands))
    (a, b), (cos, sin) = chunks.unbind(-2), rotation[..., : turning // 2].unflatten(-1, (axes, bands)).unbind(-3)
    turned = torch.stack((torch.addcmul(a * cos, b, sin, value=-1), torch.addcmul(b * cos, a, sin)), dim=-2)
    turned = turned.flatten(-3).to(x.dtype)  # (B, heads, N, turning)
    return turned if turning == x.shape[-1] else torch.cat((turned, x[..., turning:]), dim=-1)
