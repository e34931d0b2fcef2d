"""Random cameras, and attention of small encodings that are told of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from visionpe import Cameras, Composition, Grid, PositionEncoding, attend, create_encoding
from visionpe.attention.dispatch import AttentionWeights
from visionpe.backbones.shared.encoded import encoded_attention

HEADS, HEAD, SIZE = 2, 16, (2, 3)
# Frequencies that are exact in float32, in which they are kept.
SPECS = {
    "prope": {"name": "prope", "theta": 16.0},
    "gta": {"name": "gta"},
    "gta shares": {"name": "gta", "se3": 4, "so2": 8, "scale": 0.5, "max_freq": 2.0},
    "gta learned": {"name": "gta", "scale": 0.25, "learned": True},
}


def rigid(*shape: int, far: float = 1.0) -> Tensor:
    """Random rotations and translations, ``(*shape, 4, 4)``, float64."""
    q, _ = torch.linalg.qr(torch.randn(*shape, 3, 3, dtype=torch.float64))
    m = torch.eye(4, dtype=torch.float64).repeat(*shape, 1, 1)
    m[..., :3, :3] = q * torch.linalg.det(q)[..., None, None]
    m[..., :3, 3] = far * torch.randn(*shape, 3, dtype=torch.float64)
    return m


def pinholes(*shape: int, size: tuple[int, int] = (24, 32)) -> Tensor:
    """Random intrinsics in pixels of images of ``size``, with some skew, ``(*shape, 3, 3)``, float64."""
    k = torch.zeros(*shape, 3, 3, dtype=torch.float64)
    for row, side in ((0, size[1]), (1, size[0])):
        k[..., row, row] = side * (1 + torch.rand(*shape))
        k[..., row, 2] = side * (0.4 + 0.2 * torch.rand(*shape))
    k[..., 0, 1] = torch.rand(*shape)
    k[..., 2, 2] = 1
    return k


def cameras(*shape: int, size: tuple[int, int] = (24, 32), **options: Any) -> Cameras:
    """Of V views or B scenes of V views."""
    return Cameras.from_pixels(rigid(*shape, **options), pinholes(*shape, size=size), size)


def moved(seen: Cameras, view: int | None = None) -> Cameras:
    """The same in another world, or with one camera moved alone."""
    extrinsics = seen.extrinsics.clone()
    which = slice(None) if view is None else slice(view, view + 1)
    extrinsics[..., which, :, :] = extrinsics[..., which, :, :] @ rigid().to(extrinsics.dtype)
    return Cameras(extrinsics, seen.intrinsics)


def make(spec: Any, size: tuple[int, int] = SIZE, *others: PositionEncoding) -> Composition:
    encoding = create_encoding(spec, dim=HEADS * HEAD, num_heads=HEADS, depth=2, grid_size=size).double().eval()
    return Composition([encoding, *others])


def attended(v: Tensor, weights: AttentionWeights) -> tuple[Tensor, AttentionWeights]:
    return attend(weights.q, weights.k, v, scale=weights.scale, biases=weights.biases), weights


def run(encoding: Composition, qkv: Tensor, grid: Grid) -> Tensor:
    return encoded_attention(*qkv, encoding, grid, attended=attended, layer=1)


def qkv_of(grid: Grid, batch: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(3, batch, HEADS, grid.num_tokens, HEAD, dtype=dtype)
