"""Every encoding in a windowed block: padding, shifts, sizes, dtypes and gradients."""

from __future__ import annotations

import pytest
import torch
from conftest import ELSEWHERE, randomize, tiny_spec
from torch import Tensor

from visionpe.backbones.shared.block import WindowBlock
from visionpe.backbones.shared.partition import Partition
from visionpe.backbones.shared.stage_encoding import StageEncoding, WindowKind
from visionpe.backbones.shared.windows import Windows
from visionpe.grid import Grid

DIM, HEADS, WINDOW = 32, 2, (4, 4)
SPECS = [
    *ELSEWHERE,
    "rope_mixed+ape",
    "lape(sincos)",
    {"name": "irpe", "on": "qkv"},
    {"name": "shaw", "values": True},
    {"name": "seqpe", "site": "logits"},
]
# The second map is smaller than a window, the third one token high.
SIZES = [(7, 9), (3, 2), (1, 6)]
BIASED = ("bias", "rotate", "value", "output", "mix")


class Windowed(torch.nn.Module):
    """One block with its encoding, as a stage would run it."""

    def __init__(self, spec: object, window: tuple[int, int] = WINDOW, **options: object) -> None:
        super().__init__()
        kinds = {"window": WindowKind(dim=DIM, num_heads=HEADS, depth=2, grid_size=window)}
        self.encoding = StageEncoding(tiny_spec(spec), dim=DIM, num_heads=HEADS, depth=2, grid_size=(8, 8), kinds=kinds)
        self.block = WindowBlock(DIM, HEADS, qkv_bias=True, init_values=0.5, depth=1, **options)
        self.window = window
        randomize(self)
        with torch.no_grad():
            for parameter in self.encoding.parameters():
                if not parameter.any():
                    parameter.normal_()

    def forward(self, x: Tensor, shift: tuple[int, int] = (0, 0), **kind: object) -> Tensor:
        size = (x.shape[1], x.shape[2])
        windows = Windows(size, self.window, shift, **{"rolled": not self.encoding.reads_neighbours, **kind})
        mask = windows.mask() if windows.masks and self.block.attn.padding == "mask" else None
        cut = Partition(windows, self.encoding.inside["window"], Grid(size=windows.window), mask, layer=1)
        return self.block(x, self.encoding.map, [cut])


def name_of(spec: object) -> str:
    return spec if isinstance(spec, str) else "-".join(map(str, spec.values()))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_padding_changes_nothing(spec: object, size: tuple[int, int]) -> None:
    """More padding, and windows shifted by padding instead of rolled: the same outputs, and the same gradients."""
    model, x = Windowed(spec), torch.randn(2, *size, DIM, requires_grad=True)
    for shift in ((0, 0), (2, 1)):
        results = []
        for kind in ({}, {"spare": (1, 2)}, {"rolled": False}):
            out = model(x, shift, **kind)
            assert out.isfinite().all()
            results.append([out, *torch.autograd.grad(out.square().sum(), x)])
        for other in results[1:]:
            for ours, wanted in zip(other, results[0]):
                torch.testing.assert_close(ours, wanted, atol=1e-5 * wanted.abs().max().item(), rtol=1e-4)


@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_windows_do_not_see_each_other(spec: object) -> None:
    """A changed token changes its own window alone, save through what acts on the map."""
    model, x = Windowed(spec), torch.randn(1, 8, 8, DIM)
    y = x.clone()
    y[:, 1, 1] = torch.randn(DIM)
    with torch.no_grad():
        changed = (model(y) - model(x)).abs().amax(-1)[0] > 1e-6  # (8, 8)
    assert changed[:4, :4].all() or spec == "lookhere"  # its heads look in directions
    if any(site in BIASED for part in model.encoding.parts for site in part.sites()) or spec in ("none", "ape"):
        assert not changed[4:].any()
        assert not changed[:, 4:].any()


@pytest.mark.parametrize("spec", [s for s in ELSEWHERE if s not in ("none", "cpe", "lape")])
def test_positions_matter_inside_and_only_offsets_do(spec: str) -> None:
    """Two windows with the same tokens give the same outputs, if positions act inside; other places other outputs."""
    model, tile = Windowed(spec), torch.randn(1, 4, 4, DIM)
    inside = bool(model.encoding.inside["window"].parts)
    with torch.no_grad():
        out = model(tile.repeat(1, 2, 2, 1))
        torch.testing.assert_close(out[:, :4, :4], out[:, 4:, 4:], atol=1e-5, rtol=1e-5)
        order = torch.randperm(16)
        shuffled = tile.flatten(1, 2)[:, order].unflatten(1, WINDOW)
        moved = model(shuffled.repeat(1, 2, 2, 1))[:, :4, :4].flatten(1, 2)
    difference = (moved - out[:, :4, :4].flatten(1, 2)[:, order]).abs().max()
    assert inside == (difference > 1e-3)


@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_autocast(spec: object) -> None:
    model, x = Windowed(spec), torch.randn(2, 7, 9, DIM)
    with torch.no_grad():
        wanted = model(x, (2, 1))
        with torch.autocast("cpu", torch.bfloat16):
            out = model(x, (2, 1))
    assert (out.float() - wanted).norm() / wanted.norm() < 0.02


@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_gradients(spec: object) -> None:
    """Numerical gradients in float64, for the input and every parameter of the encoding, at a size with padding."""
    model = Windowed(spec, window=(2, 3)).double()
    x = torch.randn(1, 3, 4, DIM, dtype=torch.float64, requires_grad=True)
    own = list(model.encoding.inside.parameters())
    for name, parameter in model.named_parameters():
        if name.endswith("threshold"):  # of fire, which starts at the kink of a maximum
            parameter.data += 0.3

    def objective(x: Tensor, *_: Tensor) -> Tensor:
        return model(x, (1, 1)).sin().sum()

    assert torch.autograd.gradcheck(objective, (x, *own), fast_mode=True)
    for parameter in own:
        parameter.grad = None
    objective(x).backward()


@pytest.mark.parametrize("padding", ["tokens", "value"])
def test_padding_of_published_weights(padding: str) -> None:
    """Zero tokens or zero values take weight in the softmax, so that they do change the outputs at the border."""
    masked, x = Windowed("rpb"), torch.randn(1, 6, 6, DIM)
    other = Windowed("rpb", padding=padding)
    other.load_state_dict(masked.state_dict())
    with torch.no_grad():
        wanted, got = masked(x), other(x)
        torch.testing.assert_close(got[:, :4, :4], wanted[:, :4, :4])
        assert (got[:, 4:] - wanted[:, 4:]).abs().max() > 1e-3
        torch.testing.assert_close(masked(x[:, :4, :4]), other(x[:, :4, :4]))
