"""Policies by name, rotary frequencies, and what is done to logits: published formulas on values worked out by hand."""

from __future__ import annotations

import pytest
import torch
from policy_models import tiny

import visionpe
from visionpe import Grid, create_encoding
from visionpe.policy.functions import rescale_positions
from visionpe.policy.grammar import parse_policy

CONTEXT = {"dim": 32, "num_heads": 2, "depth": 2, "grid_size": (4, 6)}
CPU = torch.device("cpu")


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
        ("yarn(inf, inf)", "alpha inf is out of range; allowed: 0 or more"),
        ("yarn(nan)", "alpha nan is out of range"),
        ("rescale(nan)", "exponent nan is out of range"),
        ("yarn(1, 0.25)", "alpha 1 is not below beta 0.25; allowed: alpha below beta"),
        ("yarn(0.5, 0.5)", "alpha 0.5 is not below beta 0.5"),
        ("yarn(2)", "alpha 2 is not below beta 1"),  # the default
        ("window_aware(99999)", "window 99999 is out of range; allowed: 1 to 1024"),
        ("window_aware(2.5)", "2.5 tokens are no window; allowed: whole ones"),
    ):
        with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
            parse_policy(text)


@pytest.mark.parametrize("value", [["yarn"], ("yarn", "p"), None, 3, {"yarn": 1}])
def test_what_is_no_text_is_no_policy(value: object) -> None:
    with pytest.raises(TypeError, match=r"policy=.* is no name; allowed: 'name', 'name\(0\.5\)'"):
        parse_policy(value)


@pytest.mark.parametrize("text", ["rescale(0.12345678)", "yarn(0.99999999, 1)", "temperature(1e-09)", "p(0.5)"])
def test_a_policy_keeps_its_digits(text: str) -> None:
    assert str(parse_policy(text)[0]) == text


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
        if policy in ("temperature", "decay") and name not in ("crse", "pape"):  # whose tokens see themselves alone
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
