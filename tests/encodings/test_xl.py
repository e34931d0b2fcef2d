"""Transformer-XL's terms, by the formula as written."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from visionpe import Grid, attend, create_encoding


def make(size: tuple[int, ...] = (3, 4), **options: Any) -> Any:
    encoding = create_encoding({"name": "xl", **options}, dim=16, num_heads=2, depth=2, grid_size=size).eval()
    for parameter in encoding.parameters():
        nn.init.normal_(parameter)
    return encoding


@pytest.mark.parametrize("size", [(7,), (3, 4), (2, 3, 2)])
@pytest.mark.parametrize("prefix", [0, 1])
@torch.no_grad()
def test_terms_of_the_paper(size: tuple[int, ...], prefix: int) -> None:
    """On one axis with half the width of frequencies it is the paper's; on more there is a sum over them."""
    encoding, grid = make(size, bands=8), Grid(size, prefix)
    q, k = torch.randn(2, 1, 2, grid.num_tokens, 8)
    frequencies = 1 / 10000 ** (torch.arange(0, 16, 2) / 16)
    places = grid.positions()
    wanted = (
        torch.einsum("hd,bhkd->bhk", encoding.content[1], k)[:, :, None].expand(-1, -1, grid.num_tokens, -1).clone()
    )
    for axis in range(len(size)):
        apart = places[:, None, axis] - places[None, :, axis]
        r = torch.cat(((apart[..., None] * frequencies).sin(), (apart[..., None] * frequencies).cos()), dim=-1)
        projected = torch.einsum("hed,qke->hqkd", encoding.weight[1, :, axis], r)
        asks = q[:, :, prefix:] + encoding.position[1][:, None]
        wanted[:, :, prefix:, prefix:] += torch.einsum("bhqd,hqkd->bhqk", asks, projected)
    bias = encoding.bias(q, k, grid, layer=1)
    torch.testing.assert_close(bias.matrix(torch.float32), wanted * 8**-0.5, atol=1e-5, rtol=1e-5)
    logits = q @ k.mT * 8**-0.5 + wanted * 8**-0.5
    for kernel in ("auto", "low_rank", "chunked"):
        torch.testing.assert_close(
            attend(q, k, k, biases=[bias], kernel=kernel), logits.softmax(-1) @ k, atol=1e-5, rtol=1e-5
        )
