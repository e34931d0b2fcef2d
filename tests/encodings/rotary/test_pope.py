"""PoPE against its open code, and attention whose queries and keys are wider than its values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_vit
from safetensors.torch import load_file

from visionpe import Composition, Grid, attend, create_encoding
from visionpe.attention import kernels
from visionpe.backbones.shared.encoded import encoded_attention

REFERENCE = Path(__file__).parents[2] / "reference"


def make(spec: Any = "pope", size: tuple[int, ...] = (3, 4), head_dim: int = 8) -> Any:
    return create_encoding(spec, dim=2 * head_dim, num_heads=2, depth=2, grid_size=size).eval()


@pytest.mark.parametrize(("name", "size", "head_dim"), [("plane", (3, 4), 8), ("space", (2, 3, 3), 12)])
def test_open_code(name: str, size: tuple[int, ...], head_dim: int) -> None:
    data = load_file(REFERENCE / "pope.safetensors")
    encoding = make(size=size, head_dim=head_dim)
    with torch.no_grad():
        encoding.phase[1] = data[f"{name}.phase"]  # some of it beyond -2 pi and 0
    for grid in (Grid(size), Grid(size, coords=Grid(size).positions())):
        q, k = encoding.rotate(data[f"{name}.q"], data[f"{name}.k"], grid, layer=1)
        torch.testing.assert_close(q, data[f"{name}.turned_q"], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(k, data[f"{name}.turned_k"], atol=1e-5, rtol=1e-5)


def test_formula() -> None:
    """The logit by hand, with the scale of the width that heads have."""
    encoding, grid = make({"name": "pope", "phase_init": "uniform", "theta": 10.0}), Grid((3, 4))
    q, k, v = torch.randn(3, 1, 2, 12, 8)
    freqs = encoding.frequencies(0, torch.device("cpu"))[:, 0]  # column, row
    apart = (grid.positions()[None] - grid.positions()[:, None]).flip(-1) @ freqs  # (queries, keys, channels)
    sizes = torch.nn.functional.softplus(q)[..., :, None, :] * torch.nn.functional.softplus(k)[..., None, :, :]
    logits = (sizes * (apart + encoding.phase[0][:, None, None]).cos()).sum(-1) * 8**-0.5
    wanted = logits.softmax(-1) @ v

    def attended(values: Any, weights: Any) -> Any:
        return attend(weights.q, weights.k, values, biases=weights.biases, scale=weights.scale), weights

    got = encoded_attention(q, k, v, Composition([encoding]), grid, attended=attended)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("widths", [(16, 8), (8, 16)])
def test_long_sequences_of_uneven_widths(
    widths: tuple[int, int], biased: bool, gradients: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evened, they take the fused kernel; the result is that of the formula."""
    q, k = torch.randn(2, 2, 2, 20, widths[0])
    v = torch.randn(2, 2, 20, widths[1])
    biases = []
    if biased:
        rpb = create_encoding("rpb", dim=2 * widths[0], num_heads=2, grid_size=(4, 5)).eval()
        torch.nn.init.normal_(rpb.table)
        biases = [rpb.bias(q, k, Grid((4, 5)))]
    wanted = attend(q, k, v, biases=biases, kernel="math")
    seen = []
    evened = kernels.evened
    monkeypatch.setattr(kernels, "CHUNK_BYTES", 400)
    monkeypatch.setattr(kernels, "evened", lambda *all_: seen.append(1) or evened(*all_))
    with torch.set_grad_enabled(gradients):
        got = attend(q.requires_grad_(gradients), k, v, biases=biases)
    assert seen
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
    assert got.shape == v.shape


def test_refused() -> None:
    with pytest.raises(ValueError, match="wider than they came"):
        tiny_vit("pope+rope_axial")
    with pytest.raises(ValueError, match="is not one rotary encoding"):
        tiny_vit("harope(pope)")
    with pytest.raises(ValueError, match="cannot be dropped"):
        tiny_vit("dropped(pope)")
    with pytest.raises(ValueError, match="layout='half': pope has no channel pairs"):
        make({"name": "pope", "layout": "half"})
    assert tiny_vit("pope+ape+cpe") is not None
