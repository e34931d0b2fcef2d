"""Small encodings with random weights, random inputs, and what the sites make of them."""

from __future__ import annotations

import torch
from conftest import ENCODINGS, randomize, tiny_spec
from torch import Tensor

from visionpe import Composition, Grid, create_encoding
from visionpe.attention.dispatch import AttentionWeights
from visionpe.memo import Carried

DIM, HEADS, HEAD_DIM = 32, 2, 16
# Every layout of rotary channels, and positions that do not start at 0 nor step by 1.
LAYOUTS = [
    "rope_axial(grid_indexing=ij, layout=half, grid_offset=1, ref_feat_shape=4)",
    "rope_axial(layout=axis_half, grid_offset=-0.5, ref_feat_shape=(9, 4))",
    "rope_axial(mrope_section=(2, 3, 2), theta=10, grid_indexing=ij, layout=half)",
    "rope_mixed(layout=axis_half, grid_offset=2)",
    "rope_norm(grid_indexing=xy, layout=axis_half, grid_offset=0.25)",
]
SPECS = [*ENCODINGS, *LAYOUTS, "rope_mixed+ape", "alibi+rope_axial+cpe", "rpb+kerple"]


def make(spec: object, grid_size: tuple[int, ...] = (6, 6), **options: object) -> Composition:
    encoding = create_encoding(tiny_spec(spec), dim=DIM, num_heads=HEADS, depth=2, grid_size=grid_size, **options)
    encoding = encoding if isinstance(encoding, Composition) else Composition([encoding])
    return randomize(encoding)


def tokens_of(q: Tensor) -> Tensor:
    """Tokens ``(B, N, dim)`` for encodings that read them, those that projected to ``q`` as they are."""
    return q.transpose(1, 2).flatten(2)


def logits(
    encoding: Composition, q: Tensor, k: Tensor, grid: Grid, layer: int = 1, carried: Carried | None = None
) -> Tensor:
    """What the softmax would see, unscaled."""
    rotated_q, rotated_k = encoding.rotate(q, k, grid, layer=layer, tokens=tokens_of(q), carried=carried)
    total = rotated_q @ rotated_k.transpose(-2, -1)
    for bias in encoding.bias(q, k, grid, layer=layer, tokens=tokens_of(q)):
        total = total + bias.matrix(q.dtype)
    return total


def mix(encoding: Composition, attended: Tensor, v: Tensor, grid: Grid, layer: int = 0) -> Tensor:
    """The site, with weights of some queries and keys."""
    biases = encoding.bias(attended, v, grid, layer=layer, tokens=tokens_of(attended))
    weights = AttentionWeights(attended, v, biases)
    return encoding.mix(attended, v, grid, layer=layer, weights=weights)


def qk(tokens: int) -> tuple[Tensor, Tensor]:
    return torch.randn(2, HEADS, tokens, HEAD_DIM), torch.randn(2, HEADS, tokens, HEAD_DIM)
