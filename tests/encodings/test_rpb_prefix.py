"""Numbers of pairs that touch a prefix token, in every kernel."""

from __future__ import annotations

import pytest
import torch

import visionpe
from visionpe import Grid, attend


def build(**options: object) -> visionpe.PositionEncoding:
    encoding = visionpe.create_encoding({"name": "rpb", **options}, dim=16, num_heads=2, depth=3, grid_size=(3, 4))
    for p in encoding.parameters():
        torch.nn.init.normal_(p)
    return encoding


@pytest.mark.parametrize("prefix", [1, 3])
def test_terms_stand_where_beit_has_them(prefix: int) -> None:
    encoding, grid, tokens = build(prefix_slots=1), Grid((3, 4), prefix=prefix), 12 + prefix
    q = torch.randn(1, 2, tokens, 8)
    matrix = encoding.bias(q, q, grid, layer=1).matrix(torch.float32)
    terms = encoding.prefix_table[1]
    for head in range(2):
        assert (matrix[0, head, :prefix, prefix:] == terms[head, 0]).all()
        assert (matrix[0, head, prefix:, :prefix] == terms[head, 1]).all()
        assert (matrix[0, head, :prefix, :prefix] == terms[head, 2]).all()
    plain = build()
    plain.load_state_dict({"table": encoding.table})
    other = plain.bias(q, q, grid, layer=1).matrix(torch.float32)
    assert torch.equal(other[..., prefix:, prefix:], matrix[..., prefix:, prefix:])
    assert not other[..., :prefix, :].any()


@pytest.mark.parametrize(
    "kernel", ["sdpa", "chunked", "small", pytest.param("flex", marks=pytest.mark.long), "low_rank"]
)
@torch.inference_mode()
def test_kernels_agree(kernel: str) -> None:
    encoding, grid = build(prefix_slots=1), Grid((3, 4), prefix=2)
    q, k, v = torch.randn(3, 2, 2, 14, 8).unbind(0)
    biases = [encoding.bias(q, k, grid, layer=2).scaled(1.5)]
    torch.testing.assert_close(
        attend(q, k, v, biases=biases, kernel=kernel), attend(q, k, v, biases=biases, kernel="math"), atol=1e-5, rtol=0
    )


def test_dropped_patches_keep_them() -> None:
    encoding, kept = build(prefix_slots=1), torch.tensor([0, 5, 7])
    whole, part = Grid((3, 4), prefix=1), None
    places = whole.positions()[kept]
    part = Grid((3, 4), prefix=1, coords=places)
    q = torch.randn(1, 2, 13, 8)
    rows = torch.cat((torch.zeros(1, dtype=torch.long), kept + 1))
    full = encoding.bias(q, q, whole).matrix(torch.float32)[..., rows, :][..., rows]
    few = encoding.bias(q[..., rows, :], q[..., rows, :], part).matrix(torch.float32)
    torch.testing.assert_close(full, few)


def test_one_table_for_all_layers() -> None:
    encoding, grid, q = build(shared=True, prefix_slots=1), Grid((3, 4), prefix=1), torch.randn(1, 2, 13, 8)
    assert encoding.table.shape == (1, 2, 5, 7)
    first, last = (encoding.bias(q, q, grid, layer=layer).matrix(torch.float32) for layer in (0, 2))
    assert torch.equal(first, last)
