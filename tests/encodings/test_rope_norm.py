"""Rotary positions on normalised coordinates, and the options of the whole rotary family."""

from __future__ import annotations

import copy
import gc
import pickle
from math import cos, pi, sin

import pytest
import torch
from conftest import tiny_vit
from timm.layers import RotaryEmbeddingDinoV3, apply_rot_embed_cat
from torch import Tensor
from zoo_checks import check_compile, check_export

from visionpe import Grid, create_encoding
from visionpe.encodings.rotary.pairs import rotate_pairs

ROTARY = ["rope_axial", "rope_mixed", "rope_norm"]


def make(name: str = "rope_norm", size: tuple[int, ...] = (6, 6), **options: object) -> torch.nn.Module:
    axes = len(size)
    return create_encoding({"name": name, **options}, dim=32 * (axes - 1), num_heads=2, depth=2, grid_size=size)


@pytest.mark.parametrize("size", [(4, 7), (9, 5)])
@pytest.mark.parametrize("normalize", ["separate", "max", "min"])
@pytest.mark.parametrize("periods", [{}, {"base": 37.0}, {"min_period": 0.3, "max_period": 20.0}])
@pytest.mark.parametrize("layout", ["half", "adjacent"])
def test_against_timm(size: tuple[int, int], normalize: str, periods: dict[str, float], layout: str) -> None:
    spans = {"temperature" if k == "base" else k: v for k, v in periods.items()}
    theirs = RotaryEmbeddingDinoV3(16, normalize_coords=normalize, rotate_half=layout == "half", **spans).eval()
    ours = make(size=(6, 6), normalize_coords=normalize, layout=layout, **periods)
    grid = Grid(size, 1)
    q, k = torch.randn(2, 2, 2, grid.num_tokens, 16)
    embed = theirs.get_embed(list(size))
    for got, x in zip(ours.rotate(q, k, grid, layer=1), (q, k)):
        wanted = apply_rot_embed_cat(x[:, :, 1:], embed, half=layout == "half")
        assert torch.equal(got[:, :, :1], x[:, :, :1])
        torch.testing.assert_close(got[:, :, 1:], wanted, atol=1e-5, rtol=1e-6)


def test_augmentation_against_timm() -> None:
    """The same seed moves the coordinates in the same way."""
    options = dict(shift_coords=0.3, jitter_coords=1.4, rescale_coords=2.0)
    theirs, ours = RotaryEmbeddingDinoV3(16, **options).train(), make(**options).train()
    x = torch.randn(1, 2, 28, 16)
    torch.manual_seed(3)
    wanted = apply_rot_embed_cat(x, theirs.get_embed([4, 7]), half=True)
    torch.manual_seed(3)
    torch.testing.assert_close(ours.rotate(x, x, Grid((4, 7)))[0], wanted, atol=1e-5, rtol=1e-6)


def test_by_hand() -> None:
    encoding, x = make(), torch.randn(1, 2, 28, 16)
    rotated, _ = encoding.rotate(x, x, Grid((4, 7)))
    for token in (0, 5, 11, 27):
        row, column = (token // 7 + 0.5) / 4 * 2 - 1, (token % 7 + 0.5) / 7 * 2 - 1
        for pair in range(8):
            angle = 2 * pi * (row if pair < 4 else column) / 100 ** ((pair % 4) / 4)
            a, b = x[0, 1, token, pair].item(), x[0, 1, token, pair + 8].item()
            wanted = [a * cos(angle) - b * sin(angle), a * sin(angle) + b * cos(angle)]
            assert rotated[0, 1, token, [pair, pair + 8]].tolist() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("normalize", ["separate", "max", "min"])
def test_policies(normalize: str) -> None:
    """Extrapolation keeps the step between tokens, interpolation the span."""
    encoding, device = make(size=(4, 6), normalize_coords=normalize), torch.device("cpu")
    trained = {"separate": (4, 6), "max": (6, 6), "min": (4, 4)}[normalize]
    for size in ((4, 6), (3, 5), (8, 12)):
        for policy in ("interpolate", "extrapolate"):
            encoding.set_policy(policy)
            steps = [c[1] - c[0] for c in encoding.coordinates(Grid(size), device, torch.float32)]
            lengths = {"separate": size, "max": (max(size),) * 2, "min": (min(size),) * 2}[normalize]
            divided = trained if policy == "extrapolate" else lengths
            assert [s.item() for s in steps] == pytest.approx([2 / n for n in divided], abs=1e-6)
    assert encoding.policies[0] == "interpolate"


def coordinates(encoding: torch.nn.Module, grid: Grid) -> Tensor:
    return torch.cat(encoding.coordinates(grid, torch.device("cpu"), torch.float32))


def test_one_draw_a_forward_pass() -> None:
    encoding = make(shift_coords=0.5, jitter_coords=1.5, rescale_coords=1.5).train()
    first, second = Grid((4, 7)), Grid((4, 7))
    a, b = coordinates(encoding, first), coordinates(encoding, second)
    assert torch.equal(coordinates(encoding, first), a)
    assert not torch.equal(a, b)
    assert torch.equal(coordinates(encoding, second), b)
    assert torch.equal(coordinates(encoding.eval(), first), coordinates(make(), first))
    copy.deepcopy(encoding), pickle.dumps(encoding)
    del first, second
    gc.collect()
    assert not encoding.augmentation._draws


@pytest.mark.parametrize("option", ["shift_coords", "jitter_coords", "rescale_coords"])
def test_each_augmentation(option: str) -> None:
    encoding, plain = make(**{option: 2.0}).train(), make()
    rows, columns = plain.coordinates(Grid((5, 7)), torch.device("cpu"), torch.float32)
    moved = [encoding.coordinates(Grid((5, 7)), torch.device("cpu"), torch.float32) for _ in range(300)]
    r, c = (torch.stack(m) for m in zip(*moved))
    if option == "shift_coords":
        shifts = torch.stack([(r - rows)[:, 0], (c - columns)[:, 0]])
        torch.testing.assert_close(r - rows, shifts[0][:, None].expand(-1, 5), atol=1e-6, rtol=0)
        assert -2 <= shifts.min() < -1.8
        assert 1.8 < shifts.max() <= 2
        assert shifts.T.corrcoef().isfinite().all()
        assert (shifts[0] - shifts[1]).abs().max() > 0.5
    else:
        factors = torch.stack([r[:, 0] / rows[0], c[:, 0] / columns[0]])
        torch.testing.assert_close(r, factors[0][:, None] * rows, atol=1e-6, rtol=0)
        assert 0.5 - 1e-6 <= factors.min() < 0.55
        assert 1.8 < factors.max() <= 2 + 1e-6
        assert abs(factors.log().mean()) < 0.1  # log-uniform
        same = (factors[0] - factors[1]).abs().max() < 1e-5
        assert same == (option == "rescale_coords")


def test_checkpointed_layers_see_the_same_draw() -> None:
    """Two passes in flight, layers recomputed in the backward pass, dropout after the draw."""
    spec = {"name": "rope_norm", "shift_coords": 0.9, "jitter_coords": 2.0}
    model = tiny_vit(spec, proj_drop_rate=0.3).train()
    x, y, grads = torch.randn(2, 3, 24, 24), torch.randn(2, 3, 16, 24), []
    for enable in (False, True):
        model.zero_grad()
        model.set_grad_checkpointing(enable)
        torch.manual_seed(0)
        (model(x).square().sum() + model(y).square().sum()).backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    for plain, recomputed in zip(*grads):
        torch.testing.assert_close(recomputed, plain)


def test_three_axes() -> None:
    encoding, grid = make(size=(2, 3, 4)), Grid((2, 3, 4), 1)
    x = torch.randn(1, 2, 25, 32)
    a, b = encoding.rotate(x, x, grid)
    listed = Grid((2, 3, 4), 1, coords=grid.positions() + torch.tensor([3.0, -5.0, 2.0]))
    c, d = encoding.rotate(x, x, listed)
    for left, right in ((a, b), (c, d)):
        assert left.shape == right.shape
    torch.testing.assert_close(
        (a @ b.mT)[..., 1:, 1:], (c @ d.mT)[..., 1:, 1:], atol=1e-4, rtol=1e-4
    )  # relative in all three axes
    assert (a - x).abs().amax((0, 1, 3))[1:].min() > 0


@pytest.mark.parametrize("name", ROTARY)
@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize("p", [0.0, 0.5])
@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("layout", ["half", "axis_half"])
def test_layouts_differ_by_a_permutation(name: str, prefix: int, p: float, listed: bool, layout: str) -> None:
    adjacent, half = make(name, layout="adjacent", p=p), make(name, layout=layout, p=p)
    half.load_state_dict(adjacent.state_dict())
    grid = Grid((4, 7), prefix, coords=Grid((4, 7)).positions() if listed else None)
    q, k = torch.randn(2, 2, 2, grid.num_tokens, 16)
    order = torch.arange(16).view((8, 2) if layout == "half" else (2, 4, 2)).mT.flatten()
    turned = half.rotate(q[..., order], k[..., order], grid, layer=1)
    for got, wanted in zip(turned, adjacent.rotate(q, k, grid, layer=1)):
        torch.testing.assert_close(got, wanted[..., order], atol=1e-6, rtol=1e-6)
        assert torch.equal(got[:, :, :prefix], wanted[:, :, :prefix, order])


@pytest.mark.parametrize("name", ROTARY)
@pytest.mark.parametrize("p", [0.0, 0.25, 0.5, 1.0])
def test_slowest_pairs_stay(name: str, p: float) -> None:
    """Of the four pairs of each axis, p * 4 do not turn: the last, which are the slowest."""
    encoding, x = make(name, p=p, layout="adjacent"), torch.randn(1, 2, 28, 16)
    full = make(name, layout="adjacent")
    full.load_state_dict(encoding.state_dict())
    grid = Grid((4, 7))
    got, wanted = (e.rotate(x, x, grid, layer=1)[0].unflatten(-1, (2, 4, 2)) for e in (encoding, full))
    turning = 4 - round(4 * p)
    torch.testing.assert_close(got[..., :turning, :], wanted[..., :turning, :])
    assert torch.equal(got[..., turning:, :], x.unflatten(-1, (2, 4, 2))[..., turning:, :])
    speeds = full.frequencies(1, torch.device("cpu")).norm(dim=0).unflatten(-1, (2, 4))
    assert (speeds.diff(dim=-1) < 0).all()


@pytest.mark.parametrize("layout", ["adjacent", "half", "axis_half"])
def test_rotation_of_pairs(layout: str) -> None:
    angle = torch.randn(2, 5, 4, dtype=torch.float64)
    dim = -1 if layout == "adjacent" else -2
    rotation = torch.stack((angle.cos(), angle.sin()), dim)
    x = torch.randn(3, 2, 5, 8, dtype=torch.float64, requires_grad=True)
    turned = rotate_pairs(x, rotation, layout, 2)
    places = {
        "adjacent": [(0, 1), (2, 3), (4, 5), (6, 7)],
        "half": [(0, 4), (1, 5), (2, 6), (3, 7)],
        "axis_half": [(0, 2), (1, 3), (4, 6), (5, 7)],
    }
    for pair, (i, j) in enumerate(places[layout]):
        z = torch.complex(x[..., i], x[..., j]) * torch.polar(torch.ones_like(angle), angle)[..., pair]
        torch.testing.assert_close(turned[..., i], z.real)
        torch.testing.assert_close(turned[..., j], z.imag)
    rotation.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, r: rotate_pairs(x, r, layout, 2), (x, rotation), fast_mode=True)


@pytest.mark.long
@pytest.mark.parametrize(("policy", "normalize"), [("interpolate", "separate"), ("extrapolate", "max")])
def test_export_and_compile(policy: str, normalize: str) -> None:
    spec = {"name": "rope_norm", "policy": policy, "normalize_coords": normalize, "p": 0.25}
    check_export(spec)
    check_compile(spec)


def test_compile_in_training() -> None:
    torch._dynamo.reset()
    model = tiny_vit({"name": "rope_norm", "shift_coords": 0.5, "jitter_coords": 2.0}).train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.randn(1, 3, 24, 16)
    assert not torch.equal(compiled(x), compiled(x))
    compiled(x).sum().backward()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": 1.5}, "p=1.5 is no fraction; allowed: 0 to 1"),
        ({"layout": "split"}, "layout='split' is unknown; allowed: adjacent, half, axis_half"),
        ({"normalize_coords": "none"}, "normalize_coords='none' is unknown; allowed: separate, max, min"),
        ({"min_period": 1.0}, "allowed: base alone, or min_period and max_period"),
        ({"base": 10.0, "min_period": 1.0, "max_period": 2.0}, "allowed: base alone"),
        ({"jitter_coords": 0.5}, "jitter_coords=0.5 is too small; allowed: 1 or more"),
        ({"shift_coords": -1.0}, "shift_coords=-1.0 is too small; allowed: 0 or more"),
    ],
)
def test_refusals(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)
