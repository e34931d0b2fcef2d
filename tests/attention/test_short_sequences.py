"""What is done for many short sequences, and from layer to layer, without gradients."""

from __future__ import annotations

import pytest
import torch

import visionpe.attention.bias
import visionpe.attention.kernels
import visionpe.encodings.rotary.rope_mixed
from visionpe import DenseBias, Grid, OffsetBias, attend, create_encoding
from visionpe.attention.bias import offset_rows


@pytest.mark.parametrize("size", [(7, 7), (1, 9), (5, 3), (2, 3, 4)])
@pytest.mark.parametrize("prefix", [0, 2])
def test_gathered_matrix(size: tuple[int, ...], prefix: int) -> None:
    table, grid = torch.randn(3, *(2 * n - 1 for n in size)), Grid(size, prefix)
    wanted = OffsetBias(table.requires_grad_(), grid).matrix(torch.float32)  # copied line by line
    with torch.no_grad():
        torch.testing.assert_close(OffsetBias(table, grid).matrix(torch.float32), wanted, rtol=0, atol=0)
    torch.testing.assert_close(
        wanted[0, :, prefix:, prefix:], offset_rows(table, size, 0, grid.num_spatial), rtol=0, atol=0
    )


@pytest.mark.parametrize("masked", ["no", "bool", "float", "each"])
@pytest.mark.parametrize("biased", ["no", "shared", "each"])
@pytest.mark.parametrize("batch", [5, 1])
def test_parts(masked: str, biased: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = torch.randn(3, batch, 2, 9, 4)
    values = torch.randn(batch if biased == "each" else 1, 2, 9, 9)
    biases = [] if biased == "no" else [DenseBias(values), OffsetBias(torch.randn(2, 5, 5), Grid((3, 3)))]
    allowed = (torch.rand(batch if masked == "each" else 1, 1, 9, 9) > 0.4) | torch.eye(9, dtype=torch.bool)
    additive = torch.zeros(allowed.shape).masked_fill(~allowed, float("-inf"))
    mask = {"no": None, "bool": allowed, "float": additive, "each": additive}[masked]
    before = values.clone()
    wanted = attend(q, k, v, biases=biases, mask=mask, kernel="math")
    for limit in (1, 2 * 2 * 81 * 4, 2**20):  # one sample at a time, two, all
        monkeypatch.setattr(visionpe.attention.kernels, "SMALL_BYTES", limit)
        with torch.no_grad():
            for kernel in ("small", "auto"):
                torch.testing.assert_close(
                    attend(q, k, v, biases=biases, mask=mask, kernel=kernel), wanted, atol=1e-5, rtol=1e-5
                )
    assert torch.equal(values, before)  # what is written in place is its own


def rotations(encoding: torch.nn.Module, grid: Grid) -> torch.Tensor:
    device = torch.device("cpu")
    return torch.stack([encoding.rotation(grid, layer=n, device=device, dtype=torch.float32) for n in range(3)])


def test_mixed_tables_of_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    encoding = create_encoding("rope_mixed", dim=16, num_heads=2, depth=3, grid_size=(4, 4))
    size = (3, 5)
    alone = rotations(encoding, Grid(size, 1)).detach()  # with gradients
    calls = []
    original = type(encoding)._rotation_at
    monkeypatch.setattr(type(encoding), "_rotation_at", lambda *args: calls.append(1) or original(*args))
    with torch.no_grad():
        torch.testing.assert_close(rotations(encoding, Grid(size, 1)), alone)
        assert len(calls) == 1
        encoding.freqs.mul_(2)  # the next pass has another grid
        changed = rotations(encoding, Grid(size, 1))
        assert len(calls) == 2
        assert (changed - alone).abs().max() > 0.1
        monkeypatch.setattr(visionpe.encodings.rotary.rope_mixed, "TOGETHER_BYTES", 100)
        torch.testing.assert_close(rotations(encoding, Grid(size, 1)), changed)
        assert len(calls) == 5
