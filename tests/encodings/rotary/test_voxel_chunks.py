"""Rotary encodings on three axes of voxels: a chunk of the head for each, as LitePT's PointROPE (arXiv 2512.13689)."""

from __future__ import annotations

import pytest
import torch
from tiny_ptv3 import grid_sampled, tiny
from torch import Tensor

from visionpe import create_encoding
from visionpe.grid import Grid

LITEPT = "rope_axial(layout=axis_half, grid_indexing=ij)"


def plain(x: Tensor, cells: Tensor, base: float = 100.0) -> Tensor:
    """Token by token, axis by axis, pair by pair: ``(N, head_dim)`` at whole coordinates ``(N, 3)``."""
    out, width = x.clone(), x.shape[1] // 6
    for n in range(len(x)):
        for axis in range(3):
            for i in range(width):
                angle = cells[n, axis].double() / base ** (i / width)
                u, v = (int(axis * 2 * width + i + half * width) for half in (0, 1))
                out[n, u] = x[n, u] * angle.cos() - x[n, v] * angle.sin()
                out[n, v] = x[n, v] * angle.cos() + x[n, u] * angle.sin()
    return out


@pytest.mark.parametrize("head_dim", [6, 18, 24])
def test_as_litept(head_dim: int) -> None:
    """Its heads have 18 channels; what queries and keys meet at does not depend on where coordinates start."""
    encoding = create_encoding(LITEPT, dim=2 * head_dim, num_heads=2, grid_size=(32,) * 3)
    cells = torch.randint(0, 200, (20, 3))
    q, k = torch.randn(2, 1, 2, 20, head_dim, dtype=torch.float64)
    wanted = [torch.stack([plain(head, cells) for head in x[0]])[None] for x in (q, k)]
    from_corner = (cells - cells.amin(0))[None].double()
    own = encoding.rotate(q, k, Grid((32,) * 3, coords=cells[None].double(), known="finite"))
    for got, right in zip(own, wanted):
        torch.testing.assert_close(got, right, atol=1e-4, rtol=0)
    q, k = encoding.rotate(q, k, Grid((32,) * 3, coords=from_corner, known="finite"))
    torch.testing.assert_close(q @ k.mT, wanted[0] @ wanted[1].mT, atol=1e-3, rtol=0)


def test_attention_in_a_patch() -> None:
    """A block's attention among all voxels of a cloud, against coordinates of the whole cloud."""
    model, x = tiny("ptv3_b", pos_encoding=LITEPT, embed_dims=(36, 36, 72), patch_size=64), grid_sampled(40)
    attention = model.stages[0].blocks[0].attn
    seen = []
    attention.register_forward_hook(lambda module, given, out: seen.append((given[0], out)))
    with torch.no_grad():
        model(x)
        given, out = seen[0]
        q, k, v = attention.qkv(given).unflatten(-1, (3, 2, 18)).permute(1, 2, 0, 3)
        q, k = (torch.stack([plain(head, x.coords[:, 1:]) for head in heads]) for heads in (q, k))
        weights = (q @ k.mT * 18**-0.5).softmax(-1)
        torch.testing.assert_close(attention.proj((weights @ v).transpose(0, 1).flatten(1)), out, atol=1e-5, rtol=0)


def test_channels_of_a_head() -> None:
    """Even on three axes, where what thirds leave over stands still; a multiple of four on two."""
    for head_dim, still in ((18, 0), (20, 2), (22, 4)):
        encoding = create_encoding("rope_axial", dim=head_dim, num_heads=1, grid_size=(8,) * 3)
        x = torch.randn(1, 1, 5, head_dim)
        coords = torch.rand(1, 5, 3) + 1
        turned, _ = encoding.rotate(x, x, Grid((8,) * 3, coords=coords, known="finite"))
        changed = (turned != x).any(2).flatten()
        assert changed.tolist() == [True] * (head_dim - still) + [False] * still
    with pytest.raises(ValueError, match=r"head dimension 9; rope_axial turns channel pairs on three axes .* of 2"):
        create_encoding("rope_axial", dim=9, num_heads=1, grid_size=(8,) * 3)
    with pytest.raises(ValueError, match=r"head dimension 18; rope_axial turns channel pairs on two axes .* of 4"):
        create_encoding("rope_axial", dim=18, num_heads=1, grid_size=(8,) * 2)
