"""Attention logits where there are more or fewer tokens than in training."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor


def log_temperature(tokens: int, trained: int, exponent: float = 1.0) -> float:
    """What logits are multiplied by to keep the entropy of attention as the tokens grow: ``log(N) / log(N_trained)``.

    Source: "Overcoming a Theoretical Limitation of Self-Attention", arXiv 2202.12172, section 5.3 (the logarithm), and
    "Training-free Diffusion Model Adaptation for Variable-Sized Text-to-Image Synthesis", arXiv 2306.08645 (the ratio,
    there its square root).

    Args:
        tokens: That a query attends to.
        trained: In training.
        exponent: Of the ratio; 0 leaves logits as they are, negative ones soften.

    Returns:
        A factor, 1 at the trained number of tokens.
    """
    return (log(max(tokens, 2)) / log(max(trained, 2))) ** exponent


def decayed(logits: Tensor, outside: Tensor, factor: float = 0.9) -> Tensor:
    """Weaken what lies outside the trained window: positive logits there are multiplied by a constant factor.

    Source: UltraViCo, arXiv 2511.20123, eq. 6 (without its second factor for harmonic positions), and its code,
    which leaves negative logits alone: they would grow.

    Args:
        logits: ``(B, heads, rows, N)``.
        outside: 1 (or True) where a key lies outside of the window around the query, else 0; broadcastable.
        factor: 0 to 1.
    """
    # One product and one sum, with no selection.
    return torch.addcmul(logits, logits.clamp(min=0), outside.to(logits.dtype), value=factor - 1)
