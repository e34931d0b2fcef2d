"""LookHere against the published bias maps, and its views and slopes from the angles at which keys are seen."""

from __future__ import annotations

from math import atan2, degrees, hypot, inf

import pytest
import torch
from conftest import tiny_vit
from torch import Tensor
from zoo_checks import check_compile, check_export, read

from visionpe import Grid, OffsetBias, attend, create_encoding

# Where the middle of each head's view points, counter-clockwise from the right, in the published order.
HALVES, DIAGONALS = (90, 270, 180, 0), (45, 135, 315, 225)
CORNERS, TRIANGLES = (135, 45, 225, 315), (90, 270, 180, 0)
EIGHTHS = (112.5, 247.5, 157.5, 22.5, 67.5, 292.5, 202.5, 337.5)
AIMS = {180: HALVES + DIAGONALS, 90: CORNERS + TRIANGLES, 45: EIGHTHS}


def make(heads: int = 12, size: tuple[int, ...] = (6, 6), depth: int = 3, **options: object) -> torch.nn.Module:
    context = dict(dim=heads * 4, num_heads=heads, grid_size=size, depth=depth)
    return create_encoding({"name": "lookhere", **options}, **context)


def matrix(encoding: torch.nn.Module, grid: Grid, layer: int = 0) -> Tensor:
    q = torch.zeros(1, encoding.num_heads, grid.num_tokens, 4)
    return encoding.bias(q, q, grid, layer=layer).matrix(torch.float32)[0]


@pytest.mark.parametrize("view", [180, 90, 45])
@pytest.mark.parametrize("size", [(3, 3), (14, 14), (24, 24), (10, 17)])
def test_published_maps(view: int, size: tuple[int, int]) -> None:
    """Every layer and head, with the class token, at the published size, a larger one and one that is not square."""
    _, _, outputs, metadata = read("lookhere")
    name, official = "{}x{}".format(*size), metadata["kwargs"]
    heads, depth, step = official["num_heads"], official["depth"], metadata["steps"][name]
    options = {key: official[key] for key in ("global_slope", "layer_slopes")}
    encoding, grid = make(heads, (14, 14), depth, view=view, **options), Grid(size, 1)
    exact = make(heads, (14, 14), depth, view=view, rounded=False, **options)
    every = heads * grid.num_tokens**2  # entries of a layer, of which the file holds each step-th
    for layer in range(depth):
        first = -layer * every % step
        got, formula = (matrix(e, grid, layer).flatten()[first::step] for e in (encoding, exact))
        start = (layer * every + first) // step
        wanted = outputs[f"{view}.{name}"][start : start + len(got)].float()
        wanted = wanted.masked_fill(wanted < -1e30, -inf)  # the lowest number of bfloat16
        assert torch.equal(got, wanted)
        torch.testing.assert_close(formula, wanted, atol=0, rtol=2**-8)


@pytest.mark.parametrize("view", [180, 90, 45])
@pytest.mark.parametrize("size", [(4, 7), (6, 3)])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_by_hand(view: int, size: tuple[int, int], layer: int) -> None:
    got, width = matrix(make(view=view, global_slope=0.7, rounded=False), Grid(size), layer), size[1]
    slopes = [0.5] * 8 + [0.25, 0.0625, 0.015625, 0.00390625]
    for i in range(len(got[0])):
        for j in range(len(got[0])):
            up, right = i // width - j // width, j % width - i % width
            for head in range(12):
                wanted = -0.7 * [1.5, 1.0, 0.5][layer] * slopes[head] * hypot(up, right)
                if head < 8 and i != j:
                    turn = (degrees(atan2(up, right)) - AIMS[view][head] + 180) % 360 - 180
                    wanted = wanted if abs(turn) <= view / 2 + 1e-6 else -inf
                assert got[head, i, j].item() == pytest.approx(wanted, abs=1e-5), (head, up, right)


def test_head_counts() -> None:
    """The published rules for 6, 12 and 16 heads, and none left out at others."""
    views = {heads: make(heads, view=90).heads() for heads in (1, 2, 3, 4, 6, 8, 12, 16)}
    corners, triangles = ([d for d, _ in views[12]][i : i + 4] for i in (0, 4))
    assert views[6] == [*((d, 0.5) for d in corners), ((), 0.25), ((), 0.0625)]
    directions, slopes = zip(*views[16])
    assert list(directions) == [*corners, *corners, *triangles, (), (), (), ()]
    assert list(slopes) == [0.5] * 4 + [0.25] * 4 + [0.5] * 4 + [0.25, 0.0625, 0.015625, 0.00390625]
    assert all(len(v) == heads for heads, v in views.items())


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_everything_sees_itself_and_the_prefix(prefix: int) -> None:
    grid = Grid((3, 5), prefix)
    got = matrix(make(), grid)
    assert not got[:, :prefix].any()
    assert not got[..., :prefix].any()
    assert not got.diagonal(dim1=-2, dim2=-1).any()
    assert got[:8].isinf().any(-1).any(-1).all()
    assert got[8:].isfinite().all()


@pytest.mark.parametrize("kernel", ["auto", "sdpa", "chunked", "small", "math"])
def test_kernels_and_gradients(kernel: str) -> None:
    grid = Grid((3, 5), 1)
    q, k, v = torch.randn(3, 1, 12, 16, 4, dtype=torch.float64).unbind()
    encoding = make()
    bias = encoding.bias(q, k, grid)
    assert isinstance(bias, OffsetBias)
    wanted = (q @ k.mT / 2 + bias.matrix(q.dtype)).softmax(-1) @ v
    torch.testing.assert_close(attend(q, k, v, biases=[bias], kernel=kernel), wanted)
    q.requires_grad_()
    assert torch.autograd.gradcheck(lambda q: attend(q, k, v, biases=[bias], kernel=kernel), (q,), fast_mode=True)


def test_policies_and_coordinates() -> None:
    encoding, grid = make(policy="interpolate"), Grid((3, 12))
    got = matrix(encoding, grid)
    assert got[8, 0, 1].item() == pytest.approx(-1.5 * 0.25 / 2)  # a column is half a trained token
    assert got[8, 0, 12].item() == pytest.approx(-1.5 * 0.25 * 2)  # a row is two
    masked = got.isinf()
    for policy in encoding.policies:
        encoding.set_policy(policy)
        listed = Grid((3, 12), coords=grid.positions() + torch.tensor([3.0, -8.0]))
        for layer in range(3):
            torch.testing.assert_close(matrix(encoding, listed, layer), matrix(encoding, grid, layer))
            assert torch.equal(matrix(encoding, grid, layer).isinf(), masked)
    assert encoding.policies[0] == "extrapolate"


@pytest.mark.long
def test_export_and_compile() -> None:
    check_export({"name": "lookhere", "view": 180}, num_heads=8)
    check_compile({"name": "lookhere", "view": 45}, num_heads=8)


def test_half_precision() -> None:
    model = tiny_vit("lookhere", num_heads=8).bfloat16()
    assert model(torch.randn(1, 3, 24, 40).bfloat16()).isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"view": 60}, "view=60 is unknown; allowed: 45, 90, 180"),
        ({"size": (2, 3, 4)}, "directions on two axes alone"),
        ({"global_slope": -1.0}, "global_slope=-1.0"),
        ({"layer_slopes": (1.0, -1.0)}, r"layer_slopes=\(1.0, -1.0\)"),
    ],
)
def test_refusals(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)
