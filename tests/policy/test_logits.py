"""What is done to all attention logits: temperature and decay, by the formula."""

from __future__ import annotations

from math import exp, log

import pytest
import torch
from policy_models import tiny
from torch import Tensor

import visionpe
from visionpe import Grid, create_encoding
from visionpe.attention.axial import AxialBias
from visionpe.attention.bias import AxesBias, Bias, DenseBias, LowRankBias, OffsetBias
from visionpe.attention.buckets import BucketBias, SumBias
from visionpe.attention.dispatch import AttentionWeights, attend
from visionpe.attention.logits import Decay
from visionpe.policy.functions import log_temperature, yarn_temperature

CPU = torch.device("cpu")


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
    monkeypatch.setattr("visionpe.attention.kernels.SMALL_BYTES", 3000)
    monkeypatch.setattr("visionpe.attention.kernels.CHUNK_BYTES", 5000)
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


@pytest.mark.long
def test_compiles() -> None:
    model = tiny("rope", depth=1)
    visionpe.set_policy(model, "yarn+resonance+temperature+decay")
    images = torch.randn(2, 3, 32, 28)
    with torch.no_grad():
        expected = model(images)
        torch.testing.assert_close(torch.compile(model, fullgraph=True)(images), expected, atol=1e-5, rtol=1e-4)


def test_the_temperature_of_yarn_reaches_attention() -> None:
    for spec in ("rope_axial", "randomised(rope_axial)"):
        encoding = tiny("none", pos_encoding=spec).pos_encoding
        visionpe.set_policy(encoding, "yarn+temperature")
        grid = Grid((8, 6))
        expected = yarn_temperature((8, 6), (4, 6)) * log_temperature(48, 24)
        assert expected > log_temperature(48, 24) > 1
        assert encoding.logit_rule(grid).factor == pytest.approx(expected)
        visionpe.set_policy(encoding, "ntk")
        assert encoding.logit_rule(grid) is None


@torch.no_grad()
def test_attention_of_a_block_by_the_formula() -> None:
    """Biases are logits too; what is weighted besides the values has the same weights."""
    model = tiny("none", pos_encoding=[{"name": "irpe", "on": "kv"}, "alibi"])
    encoding, attention, grid = model.pos_encoding, model.blocks[0].attn, Grid((8, 9), prefix=1)
    visionpe.set_policy(model, "temperature(2)+decay(0.5)")
    qkv = torch.randn(2, 73, 3, 2, 16)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    rule = encoding.logit_rule(grid)
    logits = q @ k.mT / 4 + sum(bias.matrix(torch.float32) for bias in encoding.bias(q, k, grid))
    weights = rule.decay.rows(rule.factor * logits, 0, 73).softmax(-1)

    class Rows:
        def rows(self, start: int, stop: int) -> Tensor:
            return weights[:, :, start:stop]

        def chunks(self) -> list[tuple[int, int]]:
            return [(0, 73)]

    expected = encoding.mix(weights @ v, v, grid, weights=Rows())  # type: ignore[arg-type]
    got = attention.encoded(qkv, encoding, grid)
    torch.testing.assert_close(got, expected.transpose(1, 2).flatten(2), atol=1e-5, rtol=1e-4)
