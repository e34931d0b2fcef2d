"""Choosing a policy for one resolution from unlabelled images: what predictions on two views of each tell of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

DRAWS = 400
# A choice that fewer bootstrap draws put ahead of what needs no choice is none.
LEAST_CONFIDENCE = 0.95
# What is measured beside the policies: the images resized to the trained size, run as built.
DOWNSCALE = "downscale"

Views = tuple[Tensor, Tensor]  # logits (n, classes) of the same images, and of these moved a little


def agreement(first: Tensor, second: Tensor) -> Tensor:
    """How likely a class drawn from each prediction is the same, image by image: ``(n,)``, 0 to 1.

    Args:
        first, second: Probabilities ``(n, classes)``.
    """
    return (first * second).sum(-1)


def mutual_information(p: Tensor, weights: Tensor | None = None) -> Tensor:
    """Entropy of the mean prediction less the mean entropy of predictions, nats: sure of each image, of all classes.

    Args:
        p: Probabilities ``(n, classes)``.
        weights: Of the images, ``(..., n)``, that sum to one; None for equal ones.

    Returns:
        ``(...)``; 0 where all predictions are alike, at most the logarithm of the classes.
    """
    entropy = -torch.special.xlogy(p, p).sum(-1)  # (n,)
    weights = p.new_full((len(p),), 1 / len(p)) if weights is None else weights
    mean = weights @ p  # (..., classes)
    return -torch.special.xlogy(mean, mean).sum(-1) - weights @ entropy


def knowledge(views: Views, weights: Tensor | None = None) -> Tensor:
    """How much predictions tell of the images, as far as they stay when an image is moved a little.

    The mutual information of images and predictions, means over both views, times the agreement of the views: a model
    that is lost is often sure, but seldom of the same class when patches fall elsewhere.

    Args:
        views: Logits of both.
        weights: As for :func:`mutual_information`.

    Returns:
        ``(...)``, nats.
    """
    first, second = (x.softmax(-1) for x in views)
    alike = agreement(first, second)  # (n,)
    alike = alike.mean() if weights is None else weights @ alike
    return mutual_information((first + second) / 2, weights) * alike


@dataclass(frozen=True)
class PolicyChoice:
    """What was chosen, and how sure that is.

    Args:
        policy: The choice.
        margin: Its score less that of ``downscale``, or of the default policy where ``downscale`` cannot be chosen.
        sure: Share of the bootstrap draws that put the best candidate ahead of that, 0 to 1.
        warns: The model knows more of these images when they are resized to the trained size (``downscale``), which
            could not be chosen.
        scores: Of every candidate and of ``downscale``.
    """

    policy: str
    margin: float
    sure: float
    warns: bool
    scores: Mapping[str, float] = field(default_factory=dict)


def _draws(n: int, seed: int, group: int = 1) -> Tensor:
    """Bootstrap weights of ``n`` rows, ``(DRAWS, n)``, each line summing to one; of ``group`` rows an image."""
    n //= group
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(n, (DRAWS, n), generator=generator)
    weights = torch.zeros(DRAWS, n).scatter_add_(1, picks, torch.ones(DRAWS, n)) / n
    return weights.repeat_interleave(group, dim=1) / group


def select_policy(
    candidates: Mapping[str, Views], *, refused: Collection[str] = (), group: int = 1, seed: int = 0
) -> PolicyChoice:
    """Choose the policy whose predictions tell the most of the images, without labels.

    Args:
        candidates: Policy -> logits ``(n, classes)`` of the same images and of these moved a little, the default policy
            first; ``downscale`` may be among them.
        refused: Candidates that are scored and not chosen.
        group: Rows of one image, one after the other, which the bootstrap draws together: the cells of a picture.
        seed: Of the bootstrap over images.

    Returns:
        The choice by :func:`knowledge`, if at least 95% of the draws put it ahead of ``downscale``; else that. Where
        that is not among the candidates, or refused, the default policy is in its place.

    Raises:
        ValueError: If there are no candidates, no images, or their numbers differ.
    """
    shapes = {len(logits) for views in candidates.values() for logits in views}
    if len(shapes) != 1 or not min(shapes):
        raise ValueError(f"candidates: {len(candidates)} of {sorted(shapes)} images; allowed: one or more, of as many")
    names = list(candidates)
    views = [(first.float().cpu(), second.float().cpu()) for first, second in candidates.values()]
    scores = torch.stack([knowledge(each) for each in views])  # (candidates,)
    open_ = torch.tensor([name not in refused for name in names])
    best = int(scores.masked_fill(~open_, -1).argmax())  # of equal ones the first
    base = names.index(DOWNSCALE) if DOWNSCALE in candidates and DOWNSCALE not in refused else 0
    sure = 1.0
    if best != base:
        draws = _draws(shapes.pop(), seed, group)
        sure = float((knowledge(views[best], draws) > knowledge(views[base], draws)).float().mean())
        best = best if sure >= LEAST_CONFIDENCE else base
    known = dict(zip(names, scores.tolist()))
    return PolicyChoice(
        policy=names[best],
        margin=float(scores[best] - scores[base]),
        sure=sure,
        warns=known.get(DOWNSCALE, 0.0) > known[names[best]] if DOWNSCALE in refused else False,
        scores=known,
    )
