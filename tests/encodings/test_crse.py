"""cRSE by loops over pairs, in all its kernels, on windows of voxels and on dense windows with colours."""

from __future__ import annotations

from math import floor

import pytest
import torch
from torch import Tensor

from visionpe import Composition, Grid, attend, create_encoding
from visionpe.attention.dispatch import AttentionWeights

KERNELS = ["auto", "math", "sdpa", "chunked", "small"]


def make(signals: str, grid_size: tuple[int, ...], **options: object) -> Composition:
    spec = {"name": "crse", "signals": signals, "init_std": 0.7, **options}
    encoding = create_encoding(spec, dim=16, num_heads=2, depth=2, grid_size=grid_size)
    return Composition([encoding.double()])


def run(encoding: Composition, q: Tensor, k: Tensor, v: Tensor, grid: Grid, kernel: str, mask: Tensor | None) -> Tensor:
    biases = encoding.bias(q, k, grid, layer=1)
    attended = attend(q, k, v, biases=biases, mask=mask, kernel=kernel)
    weights = AttentionWeights(q, k, biases, mask)
    return encoding.mix(attended, v, grid, layer=1, weights=weights)


def by_pairs(part: torch.nn.Module, q: Tensor, k: Tensor, v: Tensor, values: dict[str, Tensor], prefix: int) -> Tensor:
    """One sample, one head at a time, one pair at a time."""
    out = torch.zeros_like(v)
    heads, count, dim = q.shape
    for head in range(heads):
        for i in range(count):
            logits, terms = [], []
            for j in range(count):
                logit, term = q[head, i] @ k[head, j] * dim**-0.5, v[head, j].clone()
                for name, s in values.items() if min(i, j) >= prefix else ():
                    tables = [getattr(part, f"{of}_{name}_table")[1] for of in ("query", "key", "value")]
                    m, length = (4 if name == "xyz" else 8), tables[0].shape[1]
                    for axis in range(s.shape[1]):
                        place = m * s[i - prefix, axis] - m * s[j - prefix, axis] + length / 2
                        row = min(max(floor(place), 0), length - 1)
                        tq, tk, tv = (t[axis, row, head] for t in tables)
                        logit = logit + q[head, i] @ tq * dim**-0.5 + k[head, j] @ tk
                        term = term + tv
                logits.append(logit)
                terms.append(term)
            out[head, i] = (torch.stack(logits).softmax(0)[:, None] * torch.stack(terms)).sum(0)
    return out


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("signals", ["XYZ", "XYZ_RGB", "XYZ_RGB_NORM", "NORM"])
def test_voxels_by_pairs(signals: str, kernel: str) -> None:
    encoding = make(signals, (3, 3, 3))
    q, k, v = torch.randn(3, 2, 2, 6, 8, dtype=torch.float64)
    places, others = torch.rand(2, 6, 3).double() * 3, torch.rand(2, 6, 6).double() * 2 - 1
    places[:, 1] = places[:, 0]  # exactly equal: the middle row
    others[0, 2] *= 4  # beyond the table: its last row
    grid = Grid((3, 3, 3), coords=places, signals=others)
    mask = torch.ones(2, 1, 1, 6, dtype=torch.bool)
    mask[1, ..., 4:] = False
    with torch.no_grad():
        ours = run(encoding, q, k, v, grid, kernel, mask)
        for i, count in ((0, 6), (1, 4)):
            values = {"xyz": places[i], "rgb": others[i, :, :3], "norm": others[i, :, 3:]}
            values = {name: s[:count] for name, s in values.items() if name.upper() in signals}
            wanted = by_pairs(encoding["crse"], *(t[i, :, :count] for t in (q, k, v)), values, 0)
            torch.testing.assert_close(ours[i, :, :count], wanted, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize("kernel", KERNELS)
def test_dense_window_with_colours(kernel: str, prefix: int) -> None:
    """Pixels of a window: their places and colours are the signals; prefix tokens have none."""
    encoding, count = make("XYZ_RGB", (3, 4)), 12 + prefix
    q, k, v = torch.randn(3, 1, 2, count, 8, dtype=torch.float64)
    colours = torch.rand(12, 3).double() * 2 - 1
    grid = Grid((3, 4), prefix, signals=colours)
    values = {"xyz": grid.positions(dtype=torch.float64), "rgb": colours}
    with torch.no_grad():
        wanted = by_pairs(encoding["crse"], q[0], k[0], v[0], values, prefix)
        torch.testing.assert_close(run(encoding, q, k, v, grid, kernel, None)[0], wanted, atol=1e-10, rtol=1e-10)
        listed = Grid((3, 4), prefix, coords=grid.positions(dtype=torch.float64)[None], signals=colours)
        torch.testing.assert_close(run(encoding, q, k, v, listed, kernel, None)[0], wanted, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("spec", ["crse+rope_axial", "crse+alibi"])
def test_beside_others(spec: str) -> None:
    """With rotated queries, or another bias, the sum is that of both; its own kernel stays out."""
    parts = create_encoding(spec, dim=16, num_heads=2, depth=2, grid_size=(4, 4, 4)).double()
    q, k, v = torch.randn(3, 2, 2, 5, 8, dtype=torch.float64)
    grid = Grid((4, 4, 4), coords=torch.rand(2, 5, 3).double() * 4)
    biases = parts.bias(q, k, grid, layer=1)
    turned = parts.rotate(q, k, grid, layer=1)
    with torch.no_grad():
        attended = attend(*turned, v, biases=biases)
        assert not biases[0].values_are_in
        logits = turned[0] @ turned[1].mT * 8**-0.5 + sum(bias.matrix(q.dtype) for bias in biases)
        torch.testing.assert_close(attended, logits.softmax(-1) @ v)


def test_window_of_another_size() -> None:
    """A difference keeps its row; one that the old table did not reach takes its end."""
    small, large = make("XYZ_RGB", (3, 3, 3)), make("XYZ_RGB", (5, 5, 5))
    large.load_state_dict(small.state_dict())
    q, k, v = torch.randn(3, 1, 2, 7, 8, dtype=torch.float64)
    grid = Grid((5, 5, 5), coords=torch.rand(1, 7, 3).double() * 5, signals=torch.rand(1, 7, 3).double())
    small["crse"].grid_size = (5, 5, 5)  # the policy measures from it
    with torch.no_grad():
        wanted = run(small, q, k, v, grid, "auto", None)
        torch.testing.assert_close(run(large, q, k, v, grid, "auto", None), wanted)
        large["crse"].set_input_grid((3, 3, 3))
    for name, table in large.state_dict().items():
        assert torch.equal(table, small.state_dict()[name])


def test_bad_options() -> None:
    for signals in ("", "XYZ_HSV", "RGB_RGB"):
        with pytest.raises(ValueError, match="allowed: any of XYZ, RGB, NORM, each once"):
            make(signals, (3, 3))
    with pytest.raises(ValueError, match="quant_size=0 must be a positive whole number"):
        make("XYZ", (3, 3), quant_size=0)
    q = torch.randn(1, 2, 9, 8, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"reads columns 3 to 5 of the grid.s signals .*; it has 3"):
        make("XYZ_NORM", (3, 3)).bias(q, q, Grid((3, 3), signals=torch.rand(9, 3)))
    with pytest.raises(ValueError, match="crse has tables for the values and needs the weights"):
        make("XYZ", (3, 3)).mix(q, q, Grid((3, 3)))


@pytest.mark.parametrize("policy", ["interpolate", "rescale(0.5)", "extrapolate"])
@pytest.mark.parametrize(("trained", "now"), [(14, 20), (14, 24), (7, 12), (14, 28), (12, 7)])
@pytest.mark.parametrize("listed", [False, True], ids=["full", "coordinates"])
def test_pairs_with_one_offset_take_one_row(trained: int, now: int, policy: str, listed: bool) -> None:
    """Differences of rescaled positions differ by rounding, and a row is a whole number."""
    encoding = create_encoding("crse", dim=8, num_heads=1, grid_size=(trained, 2), policy=policy, quant_size=3)
    torch.nn.init.normal_(encoding.query_xyz_table)
    q, grid = torch.ones(1, 1, now, 8), Grid((now, 1))
    if listed:
        grid = Grid((now, 1), coords=grid.positions())
    matrix = encoding.bias(q, 0 * q, grid).matrix(torch.float32)[0, 0]
    for offset in range(1 - now, now):
        diagonal = matrix.diagonal(offset)  # two threads add up in another order than one
        assert torch.allclose(diagonal, diagonal[0].expand_as(diagonal), atol=1e-5), offset
