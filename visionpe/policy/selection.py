"""Choosing a policy for one resolution from unlabelled images: scores of logits, and when to trust which."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

DRAWS = 400


def agreement(logits: Tensor, reference: Tensor) -> Tensor:
    """How likely a class drawn from each prediction is the same, image by image: ``(n,)``, 0 to 1.

    Args:
        logits, reference: ``(n, classes)``.
    """
    return (logits.softmax(-1) * reference.softmax(-1)).sum(-1)


def mutual_information(logits: Tensor, weights: Tensor | None = None) -> Tensor:
    """Entropy of the mean prediction less the mean entropy of predictions, nats: sure of each image, of all classes.

    Args:
        logits: ``(n, classes)``.
        weights: Of the images, ``(..., n)``, that sum to one; None for equal ones.

    Returns:
        ``(...)``; 0 where all predictions are alike, at most the logarithm of the classes.
    """
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    entropy = -(p * log_p).sum(-1)  # (n,)
    weights = p.new_full((len(p),), 1 / len(p)) if weights is None else weights
    mean = (weights @ p).clamp(min=1e-12)  # (..., classes)
    return -(mean * mean.log()).sum(-1) - weights @ entropy


@dataclass(frozen=True)
class PolicyChoice:
    """What was chosen, and how sure that is.

    Args:
        policy: The choice.
        by: The score that decided, ``agreement``, or its product with the mutual information, ``both``.
        margin: Its score less that of the default policy.
        sure: Share of the bootstrap draws that put the best candidate ahead of the default policy, 0 to 1.
        warns: The model knows more of these images when they are resized to the trained size (``downscale``).
        scores: Of every candidate.
    """

    policy: str
    by: str
    margin: float
    sure: float
    warns: bool
    scores: Mapping[str, float] = field(default_factory=dict)


# The reference has to know this many times as much as the best candidate to be the one to imitate.
REFERENCE_RATIO = 1.15
# A choice that so few bootstrap draws put ahead of the default policy is none.
LEAST_CONFIDENCE = 0.6


def _draws(n: int, seed: int) -> Tensor:
    """Bootstrap weights of images, ``(DRAWS, n)``, each line summing to one."""
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(n, (DRAWS, n), generator=generator)
    return torch.zeros(DRAWS, n).scatter_add_(1, picks, torch.ones(DRAWS, n)) / n


def select_policy(
    candidates: Mapping[str, Tensor], reference: Tensor, *, imitators: Collection[str] = (), seed: int = 0
) -> PolicyChoice:
    """Choose the policy whose predictions are the best, without labels.

    Two scores serve, where one would fail. *Agreement* with what the model says of the same images at its trained
    size is the better one as long as it sees there what there is to see: where objects grow with the image. Where they
    keep their size on a larger canvas they are tiny at the trained size, and the model's word on them is worth little;
    then it counts together with the *mutual information* of images and predictions, as their product. Which of both
    holds shows in the mutual information itself: the reference is imitated if it knows clearly more than every
    candidate. A candidate that looks at the image as the reference does agrees with it whatever both know: it can be
    chosen only where the reference is imitated.

    Args:
        candidates: Policy -> logits ``(n, classes)`` of the same images, the default policy first.
        reference: Logits of these images resized to the trained size, run as built.
        imitators: Candidates that see no more of an image than the reference.
        seed: Of the bootstrap over images.

    Returns:
        The choice. The default policy is kept where the draws do not put the best candidate ahead of it.

    Raises:
        ValueError: If there are no candidates, no images, or their numbers differ.
    """
    if not candidates or any(len(logits) != len(reference) for logits in candidates.values()) or not len(reference):
        raise ValueError(f"candidates: {len(candidates)} given; allowed: one or more, of as many images as reference")
    names = list(candidates)
    logits = [candidates[name].float().cpu() for name in names]
    reference = reference.float().cpu()
    known = torch.stack([mutual_information(x) for x in logits])  # (candidates,)
    apart = torch.tensor([name in imitators for name in names])
    trusted = float(mutual_information(reference)) >= REFERENCE_RATIO * float(known.masked_fill(apart, 0).max())
    draws = _draws(len(reference), seed)
    each = torch.stack([agreement(x, reference) for x in logits])  # (candidates, n)
    scores, drawn = each.mean(1), each @ draws.T
    if not trusted:
        scores, drawn = scores * known, drawn * torch.stack([mutual_information(x, draws) for x in logits])
    allowed = scores if trusted else scores.masked_fill(apart, -1)
    best = int(allowed.argmax())  # of equal ones the first, so that the default goes ahead
    sure = float((drawn[best] > drawn[0]).float().mean()) if best else 1.0
    if best and sure < LEAST_CONFIDENCE:
        best = 0
    return PolicyChoice(
        policy=names[best],
        by="agreement" if trusted else "both",
        margin=float(scores[best] - scores[0]),
        sure=sure,
        warns=bool(mutual_information(reference) > known[best]),
        scores=dict(zip(names, scores.tolist())),
    )
