"""Rotary frequencies under policies: published formulas on values worked out by hand."""

from __future__ import annotations

from itertools import pairwise
from math import log, pi

import pytest
import torch
from torch import Tensor

from visionpe import Grid, create_encoding
from visionpe.policy.functions import ntk, resonance, riflex, yarn, yarn_temperature

CPU = torch.device("cpu")


def base(theta: float, pairs: int) -> Tensor:
    return theta ** -(torch.arange(pairs) / pairs)


def test_ntk_is_a_larger_base() -> None:
    freqs, s = base(100.0, 4), 3.0
    torch.testing.assert_close(ntk(freqs, s, freqs[0], freqs[-1]), base(100 * s ** (4 / 3), 4))
    torch.testing.assert_close(ntk(-freqs, s, freqs[0], freqs[-1]), -base(100 * s ** (4 / 3), 4))
    assert ntk(torch.tensor([0.3]), s, 0.3, 0.3).item() == pytest.approx(0.1)  # a pair alone is the slowest
    assert ntk(torch.tensor([0.0, 1.0]), s, 1.0, 0.1).tolist() == [0, 1]


def test_yarn_by_parts() -> None:
    trained, s = 8, 4.0
    turns = torch.tensor([2.0, 1.0, 0.625, 0.25, 0.1])  # over the trained length
    freqs = 2 * pi * turns / trained
    share = torch.tensor([1.0, 1.0, 0.5, 0.0, 0.0])
    torch.testing.assert_close(yarn(freqs, s, trained), freqs * (share + (1 - share) / s))
    torch.testing.assert_close(
        yarn(freqs, s, trained, 1, 32), freqs * torch.tensor([1 / 31 + 30 / 31 / 4, *[0.25] * 4])
    )
    assert yarn_temperature((16, 8), (8, 8)) == pytest.approx((0.1 * log(2) / 2 + 1) ** 2)
    assert yarn_temperature((4, 8), (8, 8)) == 1


def test_resonance_and_riflex() -> None:
    freqs = torch.tensor([2 * pi / 6.4, -2 * pi / 9.6, 0.0, 2 * pi / 30.2])
    torch.testing.assert_close(resonance(freqs), 2 * pi * torch.tensor([1 / 6, -1 / 10, 0, 1 / 30]))
    # Of the periods 6.4, 9.6 and 30.2 tokens, 9.6 is nearest to 14.
    torch.testing.assert_close(riflex(freqs, 28, 14), torch.stack([freqs[0], torch.tensor(-2 * pi / 28), *freqs[2:]]))
    assert riflex(freqs, 28, 14, 0.9)[1].item() == pytest.approx(-0.9 * 2 * pi / 28)
    assert riflex(freqs, 12, 14) is freqs


@pytest.mark.parametrize("policy", ["ntk", "yarn", "yarn(1, 32)"])
def test_frequencies_fall_with_the_size_and_keep_their_order(policy: str) -> None:
    encoding = create_encoding("rope_axial", dim=64, num_heads=1, grid_size=(8, 8), policy=policy)
    freqs = encoding.frequencies(0, CPU)
    sizes = [encoding._adapted(freqs, Grid((n, 8)))[1, 0, 16:] for n in (4, 6, 8, 12, 16, 48)]
    assert all((b <= a + 1e-7).all() for a, b in pairwise(sizes))
    assert all((f.diff() < 0).all() for f in sizes)
    torch.testing.assert_close(sizes[2], freqs[1, 0, 16:], atol=0, rtol=0)


@pytest.mark.parametrize("policy", ["ntk", "yarn", "riflex", "rescale", "interpolate"])
@pytest.mark.parametrize("name", ["rope_mixed", "rope_axial", "rope_norm"])
def test_each_axis_has_its_own_ratio(name: str, policy: str) -> None:
    """Of an image that is wider alone the rows turn as in training, and a tall one turns as a wide one does."""
    torch.manual_seed(0)
    encoding = create_encoding(name, dim=16, num_heads=1, grid_size=(6, 6), policy=policy)
    size = (6, 15)

    def angles(size: tuple[int, int]) -> Tensor:
        rotation = encoding.rotation(Grid(size), layer=0, device=CPU, dtype=torch.float32)
        cos, sin = rotation.unbind(-1 if encoding.layout == "adjacent" else -2)
        return torch.complex(cos, sin)[0].detach().unflatten(0, size)  # (height, width, pairs)

    trained, wide = angles((6, 6)), angles(size)
    down = [turned[1:, 0] * turned[:-1, 0].conj() for turned in (trained, wide)]
    torch.testing.assert_close(*down, atol=2e-6, rtol=0)
    across = [turned[0, 1:] * turned[0, :-1].conj() for turned in (trained, wide)]
    assert not torch.allclose(across[0][:1], across[1][:1], atol=1e-4)
    if name != "rope_mixed":  # the same bands for both axes
        tall = angles(size[::-1])
        torch.testing.assert_close(tall.transpose(0, 1), wide.roll(wide.shape[-1] // 2, -1), atol=2e-6, rtol=0)


def test_the_slowest_pairs_stand_still_at_other_sizes_alone() -> None:
    encoding = create_encoding("rope_axial", dim=32, num_heads=1, grid_size=(6, 6), policy="p(0.25)")
    freqs = encoding.frequencies(0, CPU)
    assert encoding._turning(freqs, Grid((6, 6))) is freqs
    assert encoding._turning(freqs, Grid((6, 9)))[0, 0].count_nonzero() == 6
