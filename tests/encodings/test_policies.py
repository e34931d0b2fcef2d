"""Policies by name, rotary frequencies, and what is done to logits: published formulas on values worked out by hand."""

from __future__ import annotations

from itertools import pairwise
from math import exp, log, pi

import pytest
import timm
import torch
from torch import Tensor

import visionpe
from visionpe import Grid, create_encoding
from visionpe.adapting import parse_policy
from visionpe.attention import AttentionWeights, attend
from visionpe.bias import AxesBias, AxialBias, Bias, DenseBias, LowRankBias, OffsetBias
from visionpe.buckets import BucketBias, SumBias
from visionpe.logits import Decay
from visionpe.resize import log_temperature, ntk, rescale_positions, resonance, riflex, yarn, yarn_temperature

CONTEXT = {"dim": 32, "num_heads": 2, "depth": 2, "grid_size": (4, 6)}
CPU = torch.device("cpu")


def tiny(name: str, **kwargs: object) -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {"img_size": (16, 24), "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 3}
    spec = "rope_mixed+ape" if name == "rope_ape" else {"rope": "rope_mixed"}.get(name, name)
    model = timm.create_model("none_vit_ti", **{"pos_encoding": spec, **sizes, **kwargs}).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return model


# How policies are written.


def test_grammar() -> None:
    assert [(c.name, c.values) for c in parse_policy("yarn(0.5, 2) + temperature")] == [
        ("yarn", (0.5, 2.0)),
        ("temperature", ()),
    ]
    assert str(parse_policy("rescale(0.75)")[0]) == "rescale(0.75)"
    assert parse_policy("fractional")[0].name == "interpolate"
    for text, message in (
        ("yarn++p", "cannot be read"),
        ("rescale(a)", "are no numbers"),
        ("rescale(3)", "exponent 3 is out of range; allowed: 0 to 2"),
        ("interpolate(1)", "'interpolate' is given 1 numbers; allowed: none"),
        ("decay+decay(0.5)", "names a policy twice"),
    ):
        with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
            parse_policy(text)


def test_a_policy_of_several_parts_on_a_model() -> None:
    model = tiny("rope_ape")
    rope, ape = model.pos_encoding["rope_mixed"], model.pos_encoding["ape"]
    keys = list(model.state_dict())
    visionpe.set_policy(model, "yarn+temperature(2)+bilinear")
    assert (rope.policy, ape.policy, model.pos_encoding.policy) == ("yarn", "bilinear", "temperature(2)")
    assert visionpe.policies(model)[:3] == ["temperature(2)", "yarn", "bilinear"]
    visionpe.set_policy(model, "resonance")  # joins what is in force; what is not named ends
    assert (rope.policy, ape.policy, model.pos_encoding.policy) == ("yarn+resonance", "bilinear", None)
    for wrong, message in (
        ("ntk+never", "'never' applies to no encoding"),
        ("decay+ntk+yarn", "ntk and yarn exclude each other in 'rope_mixed'"),
    ):
        with pytest.raises(ValueError, match=message):
            visionpe.set_policy(model, wrong)
        assert (rope.policy, model.pos_encoding.policy) == ("yarn+resonance", None)  # nothing of it holds
    visionpe.set_policy(model, "default")
    assert (rope.policy, ape.policy) == ("extrapolate", "bicubic_antialias")
    assert list(model.state_dict()) == keys


def test_a_policy_of_the_specification_is_the_default() -> None:
    model = tiny("ape", pos_encoding={"name": "rope_mixed", "policy": "ntk+resonance"})
    assert visionpe.policies(model)[:2] == ["ntk", "resonance"]
    visionpe.set_policy(model, "yarn+decay")
    visionpe.set_policy(model, "default")
    assert visionpe.policies(model)[:2] == ["ntk", "resonance"]
    assert model.pos_encoding.policy is None


# What every policy of every encoding has to keep.


def variants(model: torch.nn.Module) -> list[str]:
    return [*visionpe.policies(model), "temperature(-1)+decay(0.5)"]


@pytest.mark.parametrize("name", [n for n in visionpe.list_encodings() if n not in ("row_shift",)])
@torch.no_grad()
def test_identity_at_the_trained_size_and_something_else_elsewhere(name: str) -> None:
    model = tiny(name)
    native, larger, smaller = (torch.randn(2, 3, *size) for size in ((16, 24), (32, 60), (8, 36)))
    expected, before = model(native), [model(larger), model(smaller)]
    for policy in variants(model):
        visionpe.set_policy(model, "default")
        visionpe.set_policy(model, policy)
        torch.testing.assert_close(model(native), expected, atol=1e-6, rtol=1e-5)
        after = [model(larger), model(smaller)]
        assert all(y.isfinite().all() for y in after), policy
        if policy in ("temperature", "decay") and name not in ("crse",):
            assert not torch.allclose(after[0], before[0], atol=1e-6), policy
    visionpe.set_policy(model, "default")
    torch.testing.assert_close(model(larger), before[0])


@pytest.mark.parametrize(
    "policy", ["ntk", "yarn", "riflex", "rescale(0.5)+resonance", "p(0.5)", "decay", "temperature"]
)
def test_gradients_autocast_and_prefix(policy: str) -> None:
    model = tiny("rope", reg_tokens=2)
    visionpe.set_policy(model, policy)
    images = torch.randn(2, 3, 24, 36)
    model(images).square().sum().backward()
    assert model.pos_encoding["rope_mixed"].freqs.grad.isfinite().all()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = model(images)
    assert (half.float() - model(images).detach()).abs().max() < 0.1 * model(images).abs().max().clamp(min=1)


# Positions.


def test_rescaled_positions() -> None:
    p = torch.tensor([0.0, 3.0, 8.0])
    assert rescale_positions(p, 16, 4, "rescale(0.5)").tolist() == [0, 1.5, 4]
    assert rescale_positions(p, 16, 4, "rescale(1)").tolist() == rescale_positions(p, 16, 4, "interpolate").tolist()
    assert rescale_positions(p, 16, 4, "rescale(0)").tolist() == p.tolist()
    assert rescale_positions(-p, 16, 4, "clamp").tolist() == [0, -3, -3]
    with pytest.raises(ValueError, match="policy='ntk' is unknown; allowed: extrapolate, interpolate, rescale, clamp"):
        rescale_positions(p, 16, 4, "ntk")


@pytest.mark.parametrize("name", ["alibi", "lookhere", "manhattan"])
def test_a_rescaled_distance_is_a_rescaled_slope(name: str) -> None:
    plain, scaled = (create_encoding(name, **CONTEXT, **o) for o in ({}, {"policy": "rescale(0.5)"}))
    if name == "lookhere":
        plain.rounded = scaled.rounded = False
    grid, q = Grid((8, 12)), torch.zeros(1, 2, 96, 16)
    a, b = (e.bias(q, q, grid).matrix(torch.float32) for e in (plain, scaled))
    seen = a.isfinite() & (a != 0)
    torch.testing.assert_close(b[seen], a[seen] * 2**-0.5)


# Rotary frequencies.


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


# Logits.


def test_temperature_and_decay_by_the_formula() -> None:
    torch.manual_seed(0)
    model = tiny("none", class_token=True)
    visionpe.set_policy(model, "temperature(2)+decay(0.5)")
    rule = model.pos_encoding.logit_rule(Grid((8, 6), prefix=1))
    assert rule.factor == pytest.approx((log(49) / log(25)) ** 2) == log_temperature(49, 25, 2)
    assert rule.decay.reach == [2.0, None]
    q, k, v = (torch.randn(2, 2, 49, 8) for _ in range(3))
    rows = torch.cat((torch.tensor([-1000]), torch.arange(8).repeat_interleave(6)))
    far = ((rows[:, None] - rows).abs() > 2) & (rows[:, None] >= 0) & (rows >= 0)
    logits = q @ k.mT * 8**-0.5 * 1.5
    logits = torch.where(far & (logits > 0), logits / 2, logits)
    expected = logits.softmax(-1) @ v
    options = {"scale": 8**-0.5 * 1.5, "decay": rule.decay}
    torch.testing.assert_close(attend(q, k, v, **options), expected)
    torch.testing.assert_close(AttentionWeights(q, k, **options).rows(3, 11), logits.softmax(-1)[:, :, 3:11])
    assert model.pos_encoding.logit_rule(Grid((4, 6), prefix=1)) is None


@pytest.mark.parametrize("masked", [False, True])
def test_decay_in_parts(monkeypatch: pytest.MonkeyPatch, masked: bool) -> None:
    """Small and large parts, with gradients and without, biases that differ from sample to sample."""
    torch.manual_seed(0)
    grid = Grid((5, 7), prefix=1)
    q, k, v = (torch.randn(3, 2, 36, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    biases: list[Bias] = [DenseBias(torch.randn(3, 2, 36, 36, dtype=torch.float64))]
    mask = torch.rand(3, 1, 36, 36) > 0.3 if masked else None
    mask = mask | torch.eye(36, dtype=torch.bool) if mask is not None else None
    decay = Decay(grid, (2.0, 3.0), 0.7)
    logits = q @ k.mT * 8**-0.5 + biases[0].matrix(torch.float64)
    logits = torch.where(decay.outside(0, 36, CPU) & (logits > 0), logits * 0.7, logits)
    expected = (logits if mask is None else logits.masked_fill(~mask, -torch.inf)).softmax(-1) @ v
    grads = torch.autograd.grad(expected.square().sum(), (q, k, v))
    monkeypatch.setattr("visionpe.kernels.SMALL_BYTES", 3000)
    monkeypatch.setattr("visionpe.kernels.CHUNK_BYTES", 5000)
    got = attend(q, k, v, biases=biases, mask=mask, decay=decay)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(torch.autograd.grad(got.square().sum(), (q, k, v)), grads)
    with torch.no_grad():
        torch.testing.assert_close(attend(q, k, v, biases=biases, mask=mask, decay=decay), expected)


def test_decay_of_scattered_tokens_and_of_attention_along_axes() -> None:
    coords = torch.tensor([[[0.0, 0.0], [0.0, 5.0], [3.0, 1.0]], [[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])
    outside = Decay(Grid((6, 6), prefix=1, coords=coords), (2.0, 2.0), 0.9).outside(0, 4, CPU)
    assert outside.shape == (2, 1, 4, 4)
    assert outside[:, 0].sum((-2, -1)).tolist() == [6, 0]
    assert not outside[..., 0, :].any()
    model = tiny("none", pos_encoding={"name": "manhattan", "form": "axial"})
    assert "decay" not in visionpe.policies(model)
    with pytest.raises(ValueError, match="applies to no encoding"):
        visionpe.set_policy(model, "decay")


def test_a_bias_times_a_factor() -> None:
    torch.manual_seed(0)
    grid, size = Grid((3, 4), prefix=1), (1, 2, 13, 13)
    terms = [torch.randn(1, 2, 13, n) for n in (3, 4)]
    buckets = BucketBias(torch.randn(1, 2, 13, 5), lambda start, stop: torch.randint(5, (13, 13))[start:stop])
    places = torch.zeros(1, 1, 13, 7)
    cases: list[Bias] = [
        DenseBias(torch.randn(size)),
        OffsetBias(torch.randn(2, 5, 7), grid, cache=create_encoding("none", dim=4, num_heads=2).cache, key="a"),
        LowRankBias(torch.randn(1, 2, 13, 3), torch.randn(1, 2, 13, 3)),
        AxesBias(terms, grid, lambda: places),
        SumBias([buckets]),
        create_encoding("crse", dim=8, num_heads=2, grid_size=(3, 4)).bias(*torch.randn(2, 1, 2, 13, 4), grid),
    ]
    for bias in cases:
        if isinstance(bias, SumBias):
            buckets.index = lambda start, stop: (torch.arange(169).view(13, 13) % 5)[start:stop]
        expected = 3 * bias.matrix(torch.float32)
        torch.testing.assert_close(bias.scaled(3.0).matrix(torch.float32), expected)
        torch.testing.assert_close(bias.scaled(3.0).rows(2, 7, torch.float32), expected[..., 2:7, :])
        torch.testing.assert_close(bias.matrix(torch.float32), expected / 3)  # the kept one is not that of the product
    axial = AxialBias([torch.randn(2, 5), torch.randn(2, 7)], grid)
    torch.testing.assert_close(axial.scaled(3.0).along(1, torch.float32), 3 * axial.along(1, torch.float32))


def test_temperature_keeps_the_entropy_of_attention() -> None:
    """To logits that differ by about log N, as in training, the factor gives back the share of the largest one."""

    def share(tokens: int, factor: float) -> float:
        peak = factor * log(24)
        return exp(peak) / (exp(peak) + tokens - 1)

    before, after = share(24, 1.0), share(240, log_temperature(240, 24))
    assert before == pytest.approx(after, abs=0.02)
    assert share(240, 1.0) < before / 4


@pytest.mark.slow
def test_compiles() -> None:
    model = tiny("rope", depth=1)
    visionpe.set_policy(model, "yarn+resonance+temperature+decay")
    images = torch.randn(2, 3, 32, 28)
    with torch.no_grad():
        expected = model(images)
        torch.testing.assert_close(torch.compile(model, fullgraph=True)(images), expected, atol=1e-5, rtol=1e-4)
