"""The options of rotary encodings: layouts of channels, order of axes, where positions start and how far they step."""

from __future__ import annotations

from math import cos, sin
from typing import Any

import pytest
import torch
from conftest import tiny_vit
from small_encodings import HEADS, LAYOUTS, logits, make, qk
from timm.layers import RotaryEmbeddingCat, RotaryEmbeddingMixed, RotaryEmbeddingMRope, apply_rot_embed_cat
from timm.models.gemma4_vit import Gemma4RotaryEmbedding2D, apply_multidimensional_rope
from torch import Tensor, nn
from zoo_checks import check_compile, check_export

import visionpe
from visionpe import Grid, create_encoding

CPU = torch.device("cpu")
MROPE = {"name": "rope_axial", "mrope_section": (2, 3, 2), "grid_indexing": "ij", "layout": "half"}


def one(name: str = "rope_axial", size: tuple[int, ...] = (6, 6), head_dim: int = 16, **options: Any) -> Any:
    return create_encoding({"name": name, **options}, dim=2 * head_dim, num_heads=2, depth=2, grid_size=size).eval()


def places(encoding: Any, size: tuple[int, ...]) -> list[list[float]]:
    return [axis.tolist() for axis in encoding.coordinates(Grid(size), CPU, torch.float32)]


def turned(x: Tensor, pair: tuple[int, int], angle: float) -> list[float]:
    a, b = x[pair[0]].item(), x[pair[1]].item()
    return [a * cos(angle) - b * sin(angle), a * sin(angle) + b * cos(angle)]


@pytest.mark.parametrize("spec", LAYOUTS)
def test_shift_changes_nothing(spec: str) -> None:
    encoding, (q, k) = make(spec), qk(15)
    here = Grid((3, 5)).positions()
    a, b = (logits(encoding, q, k, Grid((3, 5), coords=c)) for c in (here, here + torch.tensor([7.0, -4.0])))
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    assert (a - logits(encoding, q, k, Grid((3, 5), coords=2 * here))).abs().max() > 0.1


@pytest.mark.parametrize("spec", LAYOUTS)
def test_full_grid_equals_its_coordinates(spec: str) -> None:
    encoding, (q, k) = make(spec), qk(30)
    dense, listed = Grid((4, 7), 2), Grid((4, 7), 2, coords=Grid((4, 7)).positions())
    part = encoding.parts[0]
    for policy in part.policies:
        part.set_policy(policy)
        torch.testing.assert_close(logits(encoding, q, k, dense), logits(encoding, q, k, listed), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("spec", LAYOUTS)
def test_policies(spec: str) -> None:
    """Every policy is the identity at the trained size, and they differ elsewhere."""
    model, outputs = tiny_vit(spec), {}
    trained, other = torch.randn(1, 3, 24, 24), torch.randn(1, 3, 40, 16)
    with torch.no_grad():
        wanted = model(trained)
        for policy in visionpe.policies(model):
            visionpe.set_policy(model, policy)
            torch.testing.assert_close(model(trained), wanted, atol=1e-5, rtol=1e-5)
            outputs[policy] = model(other)
    for policy, output in outputs.items():
        assert all((output - o).abs().max() > 1e-5 for p, o in outputs.items() if p != policy), policy


@pytest.mark.parametrize("name", ["rope_axial", "rope_norm"])
@pytest.mark.parametrize("layout", ["adjacent", "half", "axis_half"])
def test_order_of_the_axes(name: str, layout: str) -> None:
    """Rows first of an image are columns first of the one that lies on its side."""
    q, k = qk(15)
    order = torch.arange(15).view(3, 5).T.flatten()
    upright = one(name, (4, 6), layout=layout, grid_indexing="ij")
    lying = one(name, (6, 4), layout=layout, grid_indexing="xy")
    for got, wanted in zip(
        lying.rotate(q[:, :, order], k[:, :, order], Grid((5, 3))), upright.rotate(q, k, Grid((3, 5)))
    ):
        torch.testing.assert_close(got, wanted[:, :, order], atol=1e-6, rtol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("spec", [LAYOUTS[1][:-1] + ", policy=interpolate)", LAYOUTS[2], LAYOUTS[4]])
def test_export_and_compile(spec: str) -> None:
    check_export(spec)
    check_compile(spec)


@pytest.mark.parametrize("indexing", ["ij", "xy"])
@pytest.mark.parametrize("size", [(4, 6), (3, 4, 5)])
def test_half_inside_the_chunk_of_each_axis(size: tuple[int, ...], indexing: str) -> None:
    """By hand: of 16 channels two axes have a chunk of 8 each, three one of 4 each, and 4 are left over."""
    axes = len(size)
    encoding = one(size=size, layout="axis_half", grid_indexing=indexing)
    grid, chunk = Grid(size), {2: 8, 3: 4}[axes]
    x = torch.randn(1, 2, grid.num_tokens, 16)
    rotated, _ = encoding.rotate(x, x, grid)
    assert torch.equal(rotated[..., axes * chunk :], x[..., axes * chunk :])
    for token in (0, 7, grid.num_tokens - 1):
        place = grid.positions()[token].tolist()
        for axis, position in enumerate(place if indexing == "ij" else place[::-1]):
            for i in range(chunk // 2):
                pair = axis * chunk + i, axis * chunk + i + chunk // 2
                wanted = turned(x[0, 1, token], pair, position / 100 ** (i / (chunk // 2)))
                assert rotated[0, 1, token, list(pair)].tolist() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("size", [(4, 7), (9, 5)])
def test_gemma(size: tuple[int, int]) -> None:
    """Gemma's vision tower: the column first."""
    grid = Grid(size)
    q, k = torch.randn(2, 1, 2, grid.num_tokens, 16)
    cosine, sine = Gemma4RotaryEmbedding2D(16)(q, grid.positions().flip(-1)[None])
    encoding = one(layout="axis_half")
    for got, x in zip(encoding.rotate(q, k, grid), (q, k)):
        wanted = apply_multidimensional_rope(x.transpose(1, 2), cosine, sine).transpose(1, 2)
        torch.testing.assert_close(got, wanted, atol=1e-6, rtol=0)


def test_interleaved_axes_of_a_video() -> None:
    """By hand: of 8 pairs 1, 4, 7 turn with the row, 2 and 5 with the column, 0, 3, 6 with time."""
    size, pairs = (2, 3, 4), {0: 0, 3: 0, 6: 0, 1: 1, 4: 1, 7: 1, 2: 2, 5: 2}
    encoding, grid = one(size=size, **{**MROPE, "theta": 50.0}), Grid(size, 1)
    x = torch.randn(1, 2, grid.num_tokens, 16)
    rotated, _ = encoding.rotate(x, x, grid)
    for token, place in enumerate(grid.positions().tolist(), start=1):
        for pair, axis in pairs.items():
            wanted = turned(x[0, 1, token], (pair, pair + 8), place[axis] / 50 ** (pair / 8))
            assert rotated[0, 1, token, [pair, pair + 8]].tolist() == pytest.approx(wanted, abs=1e-5)
    image = one(**{**MROPE, "theta": 50.0})
    first = image.rotate(x[:, :, :13], x[:, :, :13], Grid((3, 4), 1))[0]
    torch.testing.assert_close(first, rotated[:, :, :13])  # an image is the frame of time 0


@pytest.mark.parametrize(
    ("p", "still"), [(0.0, set()), (0.34, {6, 7, 5}), (0.6, {3, 6, 4, 7, 5}), (1.0, set(range(8)))]
)
def test_slowest_pairs_of_interleaved_axes(p: float, still: set[int]) -> None:
    """Of time 3, of the row 3, of the column 2."""
    freqs = one(size=(2, 3, 4), p=p, **MROPE)
    speeds = freqs._turning(freqs.frequencies(0, CPU), Grid((2, 3, 4)))
    assert set((speeds == 0).all(0).flatten().nonzero().flatten().tolist()) == still


def test_where_positions_start() -> None:
    """Patches turn against prefix tokens alone."""
    q, k = qk(16)
    grid = Grid((3, 5), 1)
    plain, moved = ((a @ b.mT) for a, b in (one(grid_offset=o).rotate(q, k, grid) for o in (0, 1)))
    torch.testing.assert_close(plain[..., 1:, 1:], moved[..., 1:, 1:], atol=1e-5, rtol=1e-5)
    assert (plain - moved)[..., 0, 1:].abs().max() > 0.1
    assert places(one(grid_offset=1.0), (2, 3)) == [[1, 2], [1, 2, 3]]


@pytest.mark.parametrize("policy", ["extrapolate", "interpolate", "rescale(0.5)"])
def test_what_positions_span(policy: str) -> None:
    """At 8 x 4 tokens they span 4 x 6, the offset with them."""
    encoding = one(size=(8, 4), ref_feat_shape=(4, 6), grid_offset=1.0, policy=policy)
    assert places(encoding, (8, 4)) == [[(i + 1) / 2 for i in range(8)], [(i + 1) * 1.5 for i in range(4)]]
    step = {"extrapolate": (0.5, 1.5), "interpolate": (0.25, 3.0), "rescale(0.5)": (0.5 * 0.5**0.5, 1.5 * 2**0.5)}
    rows, columns = places(encoding, (16, 2))
    assert rows == pytest.approx([(i + 1) * step[policy][0] for i in range(16)], rel=1e-6)
    assert columns == pytest.approx([(i + 1) * step[policy][1] for i in range(2)], rel=1e-6)
    assert one(ref_feat_shape=5).ref_feat_shape == (5, 5)


@pytest.mark.parametrize("policy", ["ntk", "yarn", "riflex", "yarn+resonance"])
def test_frequency_policies_count_in_tokens(policy: str) -> None:
    """A base that turns half as far a unit, on units twice as long, is the same model."""
    plain = one(size=(8, 8), policy=policy)
    wide = one(size=(8, 8), policy=policy, ref_feat_shape=16)
    slow = plain.frequencies(0, CPU) / 2
    wide.frequencies = lambda layer, device: slow  # type: ignore[method-assign]
    x = torch.randn(1, 2, 16 * 9, 16)
    for a, b in zip(plain.rotate(x, x, Grid((16, 9))), wide.rotate(x, x, Grid((16, 9)))):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def timms(kind: str) -> nn.Module:
    moves = {"shift_coords": 0.7, "jitter_coords": 1.4, "rescale_coords": 2.0}
    if kind == "mixed":
        return RotaryEmbeddingMixed(32, depth=2, num_heads=2, grid_indexing="ij", **moves).train()
    if kind == "mrope":
        return RotaryEmbeddingMRope(16, mrope_section=(2, 3, 2), **moves).train()
    return RotaryEmbeddingCat(16, in_pixels=False, ref_feat_shape=[3, 8], temperature=100.0, **moves).train()


@pytest.mark.parametrize("kind", ["cat", "mixed", "mrope"])
def test_augmentation_against_timm(kind: str) -> None:
    """The same seed moves the coordinates in the same way, in every block."""
    theirs = timms(kind)
    spec = {
        "cat": {"ref_feat_shape": (3, 8), "policy": "interpolate", "grid_indexing": "ij"},
        "mixed": {"name": "rope_mixed"},
        "mrope": {**MROPE, "theta": 10000.0},
    }
    ours = one(**spec[kind], shift_coords=0.7, jitter_coords=1.4, rescale_coords=2.0).train()
    if kind == "mixed":
        ours.freqs.data.copy_(theirs.freqs.flip(0))
    x, grid = torch.randn(1, HEADS, 28, 16), Grid((4, 7))
    torch.manual_seed(3)
    table = theirs.get_embed([4, 7])
    torch.manual_seed(3)
    for layer in range(2):
        wanted = apply_rot_embed_cat(x, table[layer] if kind == "mixed" else table, half=kind == "mrope")
        torch.testing.assert_close(ours.rotate(x, x, grid, layer=layer)[0], wanted, atol=1e-5, rtol=1e-6)
    still = ours.eval().rotate(x, x, grid)[0]
    assert (still - ours.train().rotate(x, x, Grid((4, 7)))[0]).abs().max() > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"name": "rope_norm", "ref_feat_shape": (7, 7)},
            r"ref_feat_shape=\(7, 7\): .* fractions of the image already",
        ),
        ({**MROPE, "grid_indexing": "xy"}, "grid_indexing='xy' with mrope_section.*; allowed: 'ij'"),
        ({**MROPE, "layout": "axis_half"}, "layout='axis_half' with mrope_section.*; allowed: 'half', 'adjacent'"),
        ({**MROPE, "size": (2, 2, 2, 2)}, r"grid_size=\(2, 2, 2, 2\) with mrope_section.*; allowed: 2 or 3 axes"),
        ({"ref_feat_shape": (7, 7), "size": (2, 2, 2)}, r"ref_feat_shape=\(7, 7\) must be 3 numbers"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        one(**options)
