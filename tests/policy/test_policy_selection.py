"""Choosing a policy without labels."""

from __future__ import annotations

import pytest
import torch

from visionpe.policy.selection import DOWNSCALE, agreement, knowledge, mutual_information, select_policy

LABELS = torch.arange(200) % 10


def predictions(right: float, seed: int = 0, lost: float = 1.0) -> torch.Tensor:
    """Logits of a model that is right, and sure, on a share of the images; of the others it is as sure as ``lost``."""
    g = torch.Generator().manual_seed(seed)
    knows = torch.rand(200, generator=g) < right
    guess = torch.where(knows, LABELS, torch.randint(10, (200,), generator=g))
    sharp = torch.where(knows, 6.0, lost)[:, None]
    return sharp * torch.nn.functional.one_hot(guess, 10) + 0.3 * torch.randn(200, 10, generator=g)


def views(right: float, seed: int = 0, lost: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Of two views: alike where the model knows an image, else by chance."""
    first, second = predictions(right, seed, lost), predictions(right, seed + 100, lost)
    knows = torch.rand(200, generator=torch.Generator().manual_seed(seed)) < right
    return first, torch.where(knows[:, None], first, second)


def test_scores_by_hand() -> None:
    even, split = torch.full((4, 2), 0.5), torch.tensor([[1.0, 0.0], [0.0, 1.0]] * 2)
    assert agreement(even, split).tolist() == pytest.approx([0.5] * 4)
    assert mutual_information(even) == pytest.approx(0, abs=1e-6)
    assert mutual_information(split) == pytest.approx(0.6931, abs=1e-4)
    assert mutual_information(split[::2]) == pytest.approx(0, abs=1e-4)  # sure, but always of the same
    halves = torch.tensor([[0.25] * 4, [0.5, 0, 0.5, 0]])
    assert mutual_information(split, halves).tolist() == pytest.approx([0.6931, 0], abs=1e-4)
    sharp = 40 * split
    assert knowledge((sharp, sharp)) == pytest.approx(0.6931, abs=1e-4)
    assert knowledge((sharp, sharp.flip(1))) == pytest.approx(0, abs=1e-4)  # sure of either, and never of both
    assert knowledge((sharp, sharp), halves).tolist() == pytest.approx([0.6931, 0], abs=1e-4)


def test_what_knows_the_most_is_taken() -> None:
    candidates = {"default": views(0.3, 1), "a": views(0.6, 2), "b": views(0.4, 3), DOWNSCALE: views(0.3, 4)}
    choice = select_policy(candidates)
    assert (choice.policy, choice.warns) == ("a", False)
    assert choice.sure > 0.99
    assert choice.margin == pytest.approx(choice.scores["a"] - choice.scores[DOWNSCALE])
    assert select_policy({**candidates, DOWNSCALE: views(0.9, 4)}).policy == DOWNSCALE


def test_to_be_sure_is_not_enough() -> None:
    """A candidate that is sure of every image, but of another class when it is moved."""
    sure, right = views(0.2, 1, lost=6.0), views(0.6, 2)
    assert mutual_information(sure[0].softmax(1)) > mutual_information(right[0].softmax(1))
    assert select_policy({"default": views(0.2, 3), "sure": sure, "right": right}).policy == "right"


def test_what_is_refused_is_a_warning() -> None:
    candidates = {"default": views(0.3, 1), "a": views(0.6, 2), DOWNSCALE: views(0.9, 3)}
    choice = select_policy(candidates, refused=[DOWNSCALE])
    assert (choice.policy, choice.warns) == ("a", True)
    assert choice.scores[DOWNSCALE] > choice.scores["a"]
    assert not select_policy({**candidates, DOWNSCALE: views(0.4, 3)}, refused=[DOWNSCALE]).warns


def test_ties_and_noise_leave_the_default() -> None:
    x = views(0.7, 1)
    assert select_policy({"default": x, "same": (x[0].clone(), x[1].clone())}).policy == "default"
    for seed in range(5):  # no better than the default but by chance
        noise = 0.3 * torch.randn(200, 10, generator=torch.Generator().manual_seed(seed))
        assert select_policy({"default": x, "b": (x[0] + noise, x[1] + noise)}).margin < 0.05
    with pytest.raises(ValueError, match="candidates: 0 of"):
        select_policy({})
    with pytest.raises(ValueError, match=r"candidates: 2 of \[5, 200\] images"):
        select_policy({"default": (x[0][:5], x[1][:5]), "b": x})
    with pytest.raises(ValueError, match="candidates: 1 of"):
        select_policy({"default": (x[0][:0], x[1][:0])})


def test_a_lead_that_the_draws_do_not_bear_out_is_none() -> None:
    """What needs no choice is kept then: ``downscale`` where it may be chosen, else the default policy."""
    a, b = views(0.60, 1), views(0.60, 2)
    assert float(knowledge(b)) > float(knowledge(a))
    for refused, expected in (([], DOWNSCALE), ([DOWNSCALE], "default")):
        choice = select_policy({"default": a, DOWNSCALE: a, "b": b}, refused=refused)
        assert 0.5 < choice.sure < 0.95
        assert (choice.policy, choice.margin) == (expected, 0)
    assert select_policy({"default": a, DOWNSCALE: a, "b": views(0.9, 2)}).policy == "b"
