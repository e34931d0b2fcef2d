"""Rotary frequencies along one axis at a size that was not trained.

Everywhere ``freqs`` are radians a token along that axis, ``(..., pairs)``, of either sign; zero is a pair that the axis
does not turn, and stays zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, pi, prod
from typing import Any

import torch
from torch import Tensor


def ntk(freqs: Tensor, ratio: float, fastest: Tensor | float, slowest: Tensor | float) -> Tensor:
    """Rescale the base: the fastest pair stays, the slowest is interpolated, those between in powers.

    Source: "NTK-aware scaled RoPE" (bloc97, 2023), in YaRN, arXiv 2309.00071, definition 1: a base ``b`` of d pairs
    becomes ``b s ** (d / (d - 1))``, which multiplies pair i by ``s ** (-i / (d - 1))``. Here i / (d - 1) is read off
    the frequency itself, so that it holds for learned frequencies too.

    Args:
        freqs: See above.
        ratio: Tokens now over tokens in training, s.
        fastest, slowest: Magnitudes that the base spans, broadcastable to ``freqs``.

    Returns:
        Like ``freqs``.
    """
    span = torch.as_tensor(fastest / slowest, dtype=freqs.dtype, device=freqs.device).log()
    place = (fastest / freqs.abs().clamp(min=1e-30)).log() / span.clamp(min=1e-12)
    # One pair alone is the slowest.
    place = torch.where(span > 1e-6, place.clamp(0, 1), torch.ones_like(place))
    return freqs * ratio**-place


def yarn(freqs: Tensor, ratio: float, trained: int, alpha: float = 0.25, beta: float = 1.0) -> Tensor:
    """Interpolate the pairs that never came round in training, keep those that did, with a ramp between.

    Source: YaRN, arXiv 2309.00071, definition 2 ("NTK-by-parts"): of ``r`` turns over the trained length, pairs with
    ``r < alpha`` are interpolated, with ``r > beta`` kept. The paper's 1 and 32 suit thousands of tokens; an image of
    14 tokens a side has no pair of more than 2.3 turns, so that every pair would be interpolated. Here the default is
    one turn for what is kept, as all its angles were seen, and a quarter for what is not.

    Args:
        freqs: See above.
        ratio: Tokens now over tokens in training, s.
        trained: Tokens along the axis in training.
        alpha, beta: Turns over the trained length.
    """
    turns = trained * freqs.abs() / (2 * pi)
    kept = ((turns - alpha) / max(beta - alpha, 1e-9)).clamp(0, 1)
    return freqs * ((1 - kept) / ratio + kept)


def yarn_temperature(sizes: Sequence[int], trained: Sequence[int]) -> float:
    """What YaRN multiplies logits by: ``(0.1 ln s + 1) ** 2``, s the mean ratio of the axes; 1 below the trained size.

    Source: YaRN, arXiv 2309.00071, eq. 22, for one axis; here s is the geometric mean over the axes.
    """
    ratio = prod([n / m for n, m in zip(sizes, trained)]) ** (1 / len(sizes))
    return (0.1 * log(max(ratio, 1.0)) + 1) ** 2


def resonance(freqs: Tensor) -> Tensor:
    """Round wavelengths to whole tokens, so that what lies beyond the trained length repeats what was seen.

    Source: Resonance RoPE, arXiv 2403.00071. It joins other policies, after them.
    """
    magnitude = freqs.abs()
    wavelength = (2 * pi / magnitude.clamp(min=1e-30)).round().clamp(min=1)
    return torch.where(magnitude > 0, freqs.sign() * 2 * pi / wavelength, freqs)


def riflex(freqs: Tensor, size: int, trained: int, share: float = 1.0) -> Tensor:
    """Lower the intrinsic frequency, whose period is nearest to the trained length, below one period of the new one.

    Source: RIFLEx, arXiv 2502.15894, eq. 8: ``2 pi share / size``; its code takes a share of 0.9. There the period
    is matched to where a video is first seen to repeat itself. Nothing changes at the trained size and below.

    Args:
        freqs: See above; each line along the last axis has an intrinsic frequency of its own.
        size, trained: Tokens along the axis, now and in training.
        share: Of a period that the new length may span, above 0, at most 1.
    """
    if size <= trained:
        return freqs
    magnitude = freqs.abs()
    apart = (2 * pi / magnitude.clamp(min=1e-30) - trained).abs()
    which = apart.argmin(dim=-1, keepdim=True)
    lowered = magnitude.clamp(max=2 * pi * share / size) * freqs.sign()
    return torch.where(torch.arange(freqs.shape[-1], device=freqs.device) == which, lowered, freqs)


def adapt_frequencies(
    freqs: Tensor, size: Any, trained: int, choices: Sequence[Any], fastest: Tensor, slowest: Tensor
) -> Tensor:
    """All policies in force, along one axis.

    Args:
        freqs: See above.
        size, trained: Tokens along the axis, now and in training.
        choices: :class:`~visionpe.policy.grammar.Choice` of the policies; those that do not concern frequencies pass.
        fastest, slowest: See :func:`ntk`.
    """
    for choice in choices:
        if choice.name == "ntk":
            freqs = ntk(freqs, size / trained, fastest, slowest)
        elif choice.name == "yarn":
            freqs = yarn(freqs, size / trained, trained, choice.number(0), choice.number(1))
        elif choice.name == "riflex":
            freqs = riflex(freqs, size, trained, choice.number())
    return resonance(freqs) if any(choice.name == "resonance" for choice in choices) else freqs
