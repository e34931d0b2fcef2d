"""Every kernel gives the same attention for every encoding: value and gradient, prefix tokens, masks, windows, bf16."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import ENCODINGS, randomize, tiny_spec
from torch import Tensor

import visionpe.attention.kernels
from visionpe import Composition, Grid, attend, create_encoding
from visionpe.attention.dispatch import AttentionWeights
from visionpe.backbones.shared.windows import Windows

HEADS, HEAD_DIM = 2, 16
OPTIONS = [
    {"name": "irpe", "on": "qkv"},
    {"name": "shaw", "values": True, "prefix_slots": 1},
    {"name": "deberta", "terms": "c2p"},
    {"name": "irpe", "method": "cross", "mode": "bias", "on": "qk"},
    {"name": "seqpe", "site": "logits"},
    {"name": "manhattan", "form": "axial"},
    {"name": "kerple", "kernel": "power"},
]
BIASED = [name for name in ENCODINGS if visionpe.registry._ENCODINGS[name].structure != "none"]
SPECS = [*BIASED, *OPTIONS, "rpb+alibi+decomposed"]
PLACES = ["plain", "prefix", "masked", "windows"]


def name_of(spec: object) -> str:
    return spec if isinstance(spec, str) else "-".join(map(str, spec.values()))


def make(spec: object) -> Composition:
    encoding = create_encoding(tiny_spec(spec), dim=HEADS * HEAD_DIM, num_heads=HEADS, depth=1, grid_size=(4, 4))
    encoding = encoding if isinstance(encoding, Composition) else Composition([encoding])
    randomize(encoding)
    with torch.no_grad():
        for parameter in encoding.parameters():
            if not parameter.any():
                parameter.normal_()
    return encoding


def setting(place: str) -> tuple[Grid, Tensor | None, int]:
    """Grid, mask and samples."""
    if place == "windows":  # of a map that they do not divide, shifted: as many samples as windows
        windows = Windows((5, 6), (3, 4), (1, 2))
        return Grid((3, 4)), windows.mask(), windows.number
    grid = Grid((3, 5), prefix=2 if place == "prefix" else 0)
    if place != "masked":
        return grid, None, 2
    mask = torch.rand(2, 1, grid.num_tokens, grid.num_tokens) > 0.3
    return grid, mask | torch.eye(grid.num_tokens, dtype=torch.bool), 2


def run(encoding: Composition, inputs: list[Tensor], grid: Grid, mask: Tensor | None, kernel: str) -> Tensor:
    q, k, v = inputs
    tokens = q.transpose(1, 2).flatten(2)
    biases = encoding.bias(q, k, grid, tokens=tokens)
    q, k = encoding.rotate(q, k, grid, tokens=tokens)
    attended = attend(q, k, v, biases=biases, mask=mask, kernel=kernel)
    return encoding.mix(attended, v, grid, weights=AttentionWeights(q, k, biases, mask))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_kernels_agree(spec: object, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    axial = isinstance(spec, dict) and spec.get("form") == "axial"
    if axial and place in ("masked", "windows"):
        pytest.skip("attention along the axes takes no mask")
    encoding, (grid, mask, samples) = make(spec), setting(place)
    inputs = [torch.randn(samples, HEADS, grid.num_tokens, HEAD_DIM) for _ in range(3)]
    results = {}
    for kernel in ("math", "small", "sdpa", "low_rank", "chunked", "auto"):
        with monkeypatch.context() as patch:
            if kernel == "chunked":
                patch.setattr(visionpe.attention.kernels, "CHUNK_BYTES", 4 * grid.num_tokens * 4)  # four rows at a time
            single = [run(encoding.float(), inputs, grid, mask, kernel)]
            with torch.no_grad():
                single.append(run(encoding, inputs, grid, mask, kernel))
            # Gradients of what all pairs share are sums that cancel: in float32 they differ by the machine.
            exact = [t.double().requires_grad_() for t in inputs]
            out = run(encoding.double(), exact, grid, mask, kernel)
            grads = torch.autograd.grad(out.square().sum(), [*exact, *encoding.parameters()], allow_unused=True)
        results[kernel] = [out, *(g for g in grads if g is not None)]
        for each in single:
            assert (each - out).abs().max() <= 1e-5 * max(1, out.abs().max()), kernel
    for kernel, result in results.items():
        for ours, wanted in zip(result, results["math"], strict=True):
            assert (ours - wanted).abs().max() <= 1e-9 * max(1, wanted.abs().max()), kernel


@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_kernels_agree_in_bfloat16(spec: object) -> None:
    encoding, grid = make(spec), Grid((6, 7), 1)
    inputs = [torch.randn(2, HEADS, grid.num_tokens, HEAD_DIM) for _ in range(3)]
    narrow = copy.deepcopy(encoding).bfloat16()
    rounded = copy.deepcopy(narrow).float()  # what the kernels do is at stake, not the digits of the parameters
    inputs = [t.bfloat16().float() for t in inputs]
    with torch.no_grad():
        wanted = run(rounded, inputs, grid, None, "math")
        for kernel in ("math", "small", "sdpa", "low_rank", "chunked", "auto"):
            out = run(narrow, [t.bfloat16() for t in inputs], grid, None, kernel)
            assert out.dtype == torch.bfloat16
            # Its logits lie around 8, where bfloat16 has steps of 1/32.
            allowed = 0.02 if spec == "cpb" else 0.01
            assert (out.float() - wanted).norm() / wanted.norm() < allowed, kernel
