"""Policies of tables: formulas by hand, published code, and what holds for all of them."""

from __future__ import annotations

from math import cos, pi, sqrt

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_vit
from scipy.fft import dctn, idctn
from scipy.interpolate import RectBivariateSpline
from timm.layers import resample_patch_embed
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table
from torch import Tensor
from zoo_checks import make

import visionpe
from visionpe import Grid
from visionpe.policy.functions import (
    convolve,
    resize_fourier,
    resize_offset_table,
    resize_patch,
    resize_table,
    resize_window_aware,
    stretched_kernel,
    tiled,
    window_part,
)
from visionpe.policy.functions.offsets import geometric_places, spline_matrix

SIZES = [(9, 4), (3, 11), (6, 13), (2, 1), (12, 15)]
DOUBLE = {"dtype": torch.float64}


def double(*shape: int) -> Tensor:
    return torch.randn(*shape, **DOUBLE)


# What every one of them is: (function of a tensor and a size, its trained form, axes of the sizes).
WEIGHT, MAP = torch.randn(3, 1, 3, 3), (6, 5)
ALL = {
    "fourier": (resize_fourier, (6, 5, 3), (0, 1)),
    "window_aware": (lambda t, size: resize_table(t, size, "window_aware(2)"), (6, 5, 3), (0, 1)),
    "geometric": (lambda t, size: resize_offset_table(t, size, "geometric"), (3, 11, 9), (1, 2)),
    "clamp": (lambda t, size: resize_offset_table(t, size, "clamp"), (3, 11, 9), (1, 2)),
    "rescale": (lambda t, size: resize_offset_table(t, size, "rescale(0.7)"), (3, 11, 9), (1, 2)),
    "kernel": (lambda t, size: stretched_kernel(t, size, MAP, 0.5), (3, 1, 3, 3), (2, 3)),
    "patch": (resize_patch, (3, 2, 6, 5), (2, 3)),
}


@pytest.mark.parametrize("name", ALL)
def test_every_policy(name: str) -> None:
    """Itself at the trained size, axes change places with their sizes, 16 bits are computed in 32, and it is linear."""
    resize, shape, axes = ALL[name]
    x = torch.randn(*shape)
    assert resize(x, MAP) is x
    for size in SIZES:
        got = resize(x, size)
        assert got.isfinite().all()
        if name not in ("kernel", "window_aware"):  # those are relative to a size that would have to be turned too
            torch.testing.assert_close(
                resize(x.transpose(*axes), size[::-1]).transpose(*axes), got, atol=1e-5, rtol=1e-4
            )
        half = x.bfloat16()
        assert torch.equal(resize(half, size), resize(half.float(), size).bfloat16())
        only = resize(x, (size[0], MAP[1]))
        torch.testing.assert_close(resize(only, size) if name not in ("kernel", "window_aware") else got, got)
    wide = double(*shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: resize(t, SIZES[1]).sin(), (wide,), fast_mode=True)


@pytest.mark.parametrize("size", SIZES)
def test_fourier_is_the_cosine_transform(size: tuple[int, int]) -> None:
    table = double(6, 5, 2)
    waves = dctn(table.numpy(), axes=(0, 1), norm="ortho")
    kept = np.zeros((*size, 2))
    rows, columns = (min(a, b) for a, b in zip(size, table.shape))
    kept[:rows, :columns] = waves[:rows, :columns]
    wanted = idctn(kept, axes=(0, 1), norm="ortho") * sqrt(size[0] * size[1] / 30)
    torch.testing.assert_close(resize_fourier(table, size), torch.from_numpy(wanted))
    # A wave that fits both sizes is that wave again.
    line = torch.tensor([cos(pi * (i + 0.5) / 6) for i in range(6)], **DOUBLE)[:, None]
    finer = torch.tensor([cos(pi * (i + 0.5) / 16) for i in range(16)], **DOUBLE)[:, None]
    torch.testing.assert_close(resize_fourier(line, [16]), finer)
    assert resize_fourier(table, size).mean() == pytest.approx(float(table.mean()))


def test_window_aware() -> None:
    window, smooth = double(4, 3, 2), double(2, 3, 2)
    smooth = resize_table(smooth, (8, 9))
    # Parts that repeat come back in place at every size, whole windows or not.
    for size in ((16, 12), (5, 7), (8, 21)):
        torch.testing.assert_close(resize_window_aware(tiled(window, (8, 9)), size, (4, 3)), tiled(window, size))
    table = tiled(window, (8, 9)) + smooth
    part = table.unflatten(0, (2, 4)).unflatten(2, (3, 3)).mean((0, 2))
    torch.testing.assert_close(window_part(table, (4, 3)), part)
    wanted = tiled(part, (12, 15)) + resize_table(table - tiled(part, (8, 9)), (12, 15))
    torch.testing.assert_close(resize_table(table, (12, 15), "window_aware", window=(4, 3)), wanted)
    # By hand, with part of a window: 1 2 3 | 4 5 in windows of three has the means 2.5, 3.5, 3.
    line = torch.arange(1.0, 6)[:, None]
    assert window_part(line, [3])[:, 0].tolist() == [2.5, 3.5, 3]
    assert window_part(line, [9])[:, 0].tolist() == [1, 2, 3, 4, 5]


def test_geometric_places() -> None:
    assert geometric_places(4, 8) == pytest.approx([0, 1, 3, 7])  # a ratio of two
    golden = (sqrt(5) - 1) / 2  # 1 + q + q^2 = 2
    assert geometric_places(4, 3) == pytest.approx([0, 1, 1 + golden, 2])
    assert geometric_places(5, 5) == [0, 1, 2, 3, 4]
    assert geometric_places(2, 6) == [0, 5]
    for trained, size in ((14, 40), (40, 14), (7, 200), (64, 4)):
        places = geometric_places(trained, size)
        steps = np.diff(places)
        assert places[-1] == size - 1
        assert steps.min() > 0
        assert steps[1:-1] / steps[:-2] == pytest.approx(steps[1] / steps[0], rel=1e-3)


@pytest.mark.parametrize(("trained", "size"), [((4, 5), (9, 7)), ((7, 7), (14, 10)), ((6, 9), (3, 12))])
def test_geometric_is_beits(trained: tuple[int, int], size: tuple[int, int]) -> None:
    """A cubic spline with not-a-knot ends, over places in geometric progression."""
    table = double(2, *(2 * n - 1 for n in trained))
    knots = []
    for n, m in zip(trained, size):
        ahead = geometric_places(n, m)[1:]
        knots.append([-p for p in ahead[::-1]] + [0.0] + ahead)
    offsets = [np.arange(1 - m, m) for m in size]
    wanted = [RectBivariateSpline(*knots, t, s=0)(*offsets) for t in table.numpy()]
    got = resize_offset_table(table, size, "geometric")
    torch.testing.assert_close(got, torch.from_numpy(np.stack(wanted)), atol=1e-9, rtol=1e-9)


def test_geometric_places_are_timms() -> None:
    """timm without interp2d reads linearly between the same places; where q is within its 1.01 to 1.5."""
    table = torch.randn(2, 13, 13)
    got = resize_rel_pos_bias_table(table.flatten(1).T.clone(), (16, 12), (31 * 23, 2)).T.unflatten(1, (31, 23))
    for axis, m in enumerate((16, 12), start=1):
        ahead = geometric_places(7, m)[1:]
        knots = np.array([-p for p in ahead[::-1]] + [0.0] + ahead)
        read = np.stack([np.interp(np.arange(1 - m, m), knots, e) for e in np.eye(13)], axis=1)
        table = torch.tensordot(torch.tensor(read, dtype=torch.float32), table, dims=([1], [axis])).movedim(0, axis)
    torch.testing.assert_close(table, got, atol=1e-4, rtol=1e-4)


def test_short_splines() -> None:
    places = torch.linspace(-1, 2, 7, **DOUBLE)
    line, parabola = (torch.tensor(k, **DOUBLE) for k in ([-1, 2], [-1, 0, 2]))
    torch.testing.assert_close(spline_matrix(line, places) @ (3 * line + 1), 3 * places + 1)
    torch.testing.assert_close(spline_matrix(parabola, places) @ parabola.square(), places.square())
    cubic = torch.tensor([-1, 0, 0.5, 2], **DOUBLE)
    torch.testing.assert_close(spline_matrix(cubic, places) @ cubic**3, places**3)
    assert spline_matrix(torch.zeros(1, **DOUBLE), places).tolist() == [[1]] * 7
    # One trained token has one entry for all; two have a parabola.
    assert resize_offset_table(torch.ones(1, 1, 1), (3, 4), "geometric").tolist() == [[[1] * 7] * 5]
    got = resize_offset_table(torch.tensor([1.0, 0, 1])[None], [5], "geometric", axes=[1])
    torch.testing.assert_close(got[0], (torch.arange(-4.0, 5) / 4).square())
    # On a grid of two the neighbours keep their entries.
    assert resize_offset_table(torch.arange(7.0), [2], "geometric", axes=[0]).tolist() == [2, 3, 4]


def test_clamp_and_rescale_by_hand() -> None:
    table = torch.tensor([4.0, 2, 0, 1, 3])  # offsets -2 to 2
    assert resize_offset_table(table, [5], "clamp", axes=[0]).tolist() == [4, 4, 4, 2, 0, 1, 3, 3, 3]
    assert resize_offset_table(table, [2], "clamp", axes=[0]).tolist() == [2, 0, 1]
    zero = resize_offset_table(table, [6], "rescale(0)", axes=[0])
    torch.testing.assert_close(zero, resize_offset_table(table, [6], "clamp", axes=[0]))
    full = resize_offset_table(table, [6], "rescale(1)", axes=[0])  # every offset is halved
    torch.testing.assert_close(full, torch.tensor([4, 4, 3, 2, 1, 0, 0.5, 1, 2, 3, 3]))
    half = resize_offset_table(table, [12], "rescale(0.5)", axes=[0])
    torch.testing.assert_close(
        half,
        resize_offset_table(table, [6], "rescale(1)", axes=[0])[torch.tensor([0] * 6 + list(range(11)) + [10] * 6)],
    )


@pytest.mark.parametrize("size", [(6, 6), (32, 8), (5, 9), (7, 40)])
def test_patches_are_timms(size: tuple[int, int]) -> None:
    weight = torch.randn(3, 2, 8, 6)
    wanted = resample_patch_embed(weight, list(size), interpolation="bilinear", antialias=True)
    torch.testing.assert_close(resize_patch(weight, size), wanted, atol=1e-5, rtol=1e-4)
    if min(size) > 8:  # an enlarged patch meets an enlarged kernel with the same result
        patch = torch.randn(1, 2, 8, 6)
        large = F.interpolate(patch, size=size, mode="bilinear")
        torch.testing.assert_close((large * resize_patch(weight, size)).sum((1, 2, 3)), (patch * weight).sum((1, 2, 3)))


def test_the_window_must_be_known() -> None:
    model = tiny_vit("ape")
    assert "window_aware" not in visionpe.policies(model)
    with pytest.raises(ValueError, match=r"needs its window, as in 'window_aware\(7\)'"):
        visionpe.set_policy(model, "window_aware")
    with pytest.raises(ValueError, match=r"2\.5 tokens are no window"):
        visionpe.set_policy(model, "window_aware(2.5)")
    with pytest.raises(ValueError, match="exclude each other"):
        visionpe.set_policy(model, "bilinear+window_aware(3)")
    visionpe.set_policy(model, "window_aware(3)")
    assert visionpe.policies(model)[0] == "window_aware(3)"
    x = torch.randn(1, 36, 32)
    table = model.pos_encoding["ape"].table
    grid = Grid((9, 12))
    got = model.pos_encoding.add(torch.zeros(1, 108, 32), grid)[0]
    torch.testing.assert_close(got, resize_window_aware(table, (9, 12), (3, 3)).flatten(0, 1))
    assert torch.equal(model.pos_encoding.add(x, Grid((6, 6)))[0], x[0] + table.flatten(0, 1))
    visionpe.set_policy(model, "default")
    assert visionpe.policies(model)[0] == "bicubic_antialias"
    known = make({"name": "ape", "attention_window": 2})["ape"]
    known.set_policy("window_aware")
    torch.testing.assert_close(known.resized((6, 6)), resize_window_aware(known.table, (6, 6), (2, 2)))


@pytest.mark.slow
def test_compiled() -> None:
    """No graph break, the same numbers, at the trained size and others."""
    encodings = {name: make(name)[name] for name in ("ape", "rpb", "lepe", "irpe")}
    for name, policy in (("ape", "fourier"), ("rpb", "geometric"), ("lepe", "rescale(0.5)"), ("irpe", "reach")):
        encodings[name].set_policy(policy)
    conv = encodings["lepe"].convs[0]

    def run(x: Tensor, size: tuple[int, int]) -> list[Tensor]:
        ape, rpb, lepe, irpe = encodings.values()
        table = ape.table
        return [
            ape.resized(size),
            resize_table(table, size, "window_aware(2)"),
            rpb.resized(size, 0),
            resize_offset_table(rpb.table, size, "rescale(0.5)"),
            convolve(x, conv.weight, conv.bias, (4, 4), lepe.main_policy),
            convolve(x, conv.weight, conv.bias, (4, 4), "native"),
            irpe.index(Grid(size), 0, 5, x.device)[0],
        ]

    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, backend="eager")
    for size in ((4, 4), (6, 3)):
        x = torch.randn(1, 16, *size)
        torch.testing.assert_close(compiled(x, size), run(x, size))


@pytest.mark.parametrize(
    ("spec", "policy"),
    [("ape", "fourier"), ("ape", "window_aware(2)"), ("rpb", "geometric"), ("rpb", "geometric_linear")]
    + [("rpb", "rescale(0.5)"), ("cpe", "native"), ("irpe", "reach")],
)
def test_exported_for_one_size_and_not_for_several(spec: str, policy: str) -> None:
    model, images = tiny_vit(spec, depth=1), torch.randn(1, 3, 32, 24)
    visionpe.set_policy(model, policy)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.export(model, (images,)).module()(images), model(images))
    several = {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    with pytest.raises(ValueError, match=r"policy='\w+(\([\d.]+\))?' cannot be exported"):
        torch.export.export(model, (images,), dynamic_shapes=(several,))
