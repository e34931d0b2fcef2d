"""Choosing a policy without labels."""

from __future__ import annotations

import pytest
import torch

from visionpe.policy.selection import agreement, mutual_information, select_policy

LABELS = torch.arange(200) % 10


def predictions(right: float, seed: int = 0) -> torch.Tensor:
    """Logits of a model that is right, and sure, on a share of the images; of the others it is not sure."""
    g = torch.Generator().manual_seed(seed)
    knows = torch.rand(200, generator=g) < right
    guess = torch.where(knows, LABELS, torch.randint(10, (200,), generator=g))
    sharp = torch.where(knows, 6.0, 1.0)[:, None]
    return sharp * torch.nn.functional.one_hot(guess, 10) + 0.3 * torch.randn(200, 10, generator=g)


def test_scores_by_hand() -> None:
    even = torch.zeros(4, 2)
    split = torch.tensor([[20.0, 0.0], [0.0, 20.0]] * 2)
    assert agreement(even, split).tolist() == pytest.approx([0.5] * 4)
    assert mutual_information(even) == pytest.approx(0, abs=1e-6)
    assert mutual_information(split) == pytest.approx(0.6931, abs=1e-4)
    assert mutual_information(split[::2]) == pytest.approx(0, abs=1e-4)  # sure, but always of the same
    halves = torch.tensor([[0.25] * 4, [0.5, 0, 0.5, 0]])
    assert mutual_information(split, halves).tolist() == pytest.approx([0.6931, 0], abs=1e-4)


def test_a_good_reference_is_imitated() -> None:
    """A candidate that knows more, but something else, is not taken."""
    other = predictions(0.8, 4).roll(1, 1)
    candidates = {"default": predictions(0.3, 1), "a": predictions(0.6, 2), "b": other}
    choice = select_policy(candidates, predictions(0.98, 3))
    assert mutual_information(other) > mutual_information(candidates["a"])
    assert (choice.policy, choice.by, choice.warns) == ("a", "agreement", True)
    assert choice.sure > 0.99
    assert choice.margin == pytest.approx(choice.scores["a"] - choice.scores["default"])


def test_a_poor_reference_is_not() -> None:
    """Where the reference knows little, the candidate that repeats it is not taken."""
    reference = predictions(0.2, 3)
    candidates = {"default": predictions(0.3, 1), "repeats": 1.1 * reference, "good": predictions(0.9, 2)}
    choice = select_policy(candidates, reference)
    assert (choice.policy, choice.by, choice.warns) == ("good", "both", False)


def test_an_imitator_needs_a_reference_worth_imitating() -> None:
    poor, good = predictions(0.3, 3), predictions(0.98, 3)
    for reference, expected in ((poor, "own"), (good, "imitator")):
        candidates = {"default": predictions(0.2, 1), "own": predictions(0.5, 2), "imitator": 1.01 * reference}
        assert select_policy(candidates, reference, imitators=["imitator"]).policy == expected
        assert select_policy(candidates, reference).policy == "imitator"  # its agreement would always decide


def test_ties_and_noise_leave_the_default() -> None:
    reference, x = predictions(0.9, 3), predictions(0.7, 1)
    assert select_policy({"default": x, "same": x.clone()}, reference).policy == "default"
    for seed in range(5):  # no better than the default but by chance
        noise = 0.3 * torch.randn(200, 10, generator=torch.Generator().manual_seed(seed))
        assert select_policy({"default": x, "b": x + noise}, reference).margin < 0.02
    with pytest.raises(ValueError, match="candidates: 0 given"):
        select_policy({}, reference)
    with pytest.raises(ValueError, match="of as many images as reference"):
        select_policy({"default": x[:5]}, reference)


def test_a_lead_that_the_draws_do_not_bear_out_is_none() -> None:
    labels = torch.arange(200) % 2
    reference = 20.0 * torch.nn.functional.one_hot(labels, 2)
    right = torch.where(torch.arange(200) < 100, 0.901, 0.1)[:, None]  # of the right class, where both said a half
    of_classes = torch.where(torch.nn.functional.one_hot(labels, 2).bool(), right, 1 - right)
    choice = select_policy({"default": torch.zeros(200, 2), "mixed": of_classes.log()}, reference)
    assert choice.by == "agreement"
    assert choice.scores["mixed"] > choice.scores["default"]
    assert choice.sure < 0.6
    assert (choice.policy, choice.margin) == ("default", 0)
