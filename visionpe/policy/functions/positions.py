"""Positions and offsets at a size that was not trained."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from visionpe.policy.functions.terms import as_term
from visionpe.policy.grammar import PolicyTerm
from visionpe.tracing import is_exporting

# Of coordinates, and of distances, which may also stop at the longest trained one.
POSITION_POLICIES = ("extrapolate", "interpolate", "rescale")
OFFSET_POLICIES = (*POSITION_POLICIES, "clamp")


def exponent(policy: str | PolicyTerm | None) -> float:
    """How far a policy rescales: 0 keeps the step of training, 1 the span of training, between them in powers.

    Raises:
        ValueError: If ``policy`` is unknown.
    """
    choice = as_term(policy or "extrapolate", OFFSET_POLICIES)
    return choice.number() if choice.name == "rescale" else float(choice.name == "interpolate")


def effective_length(trained: Any, now: Any, policy: str | PolicyTerm | None) -> Any:
    """A length of training under ``extrapolate``, the present one under ``interpolate``, and the powers between."""
    power = exponent(policy)
    if power in (0, 1):  # exact, and without a power of a symbol under export
        return now if power else trained
    return trained ** (1 - power) * now**power


def rescale_positions(
    positions: Tensor, size: int, trained: int, policy: str | PolicyTerm | None = "extrapolate"
) -> Tensor:
    """Coordinates or offsets along one axis of ``size`` tokens for a model trained on ``trained``.

    Args:
        positions: In token units, any shape.
        size: Tokens along the axis now.
        trained: Tokens along the axis in training.
        policy: ``extrapolate`` keeps them, so that unseen ones appear; ``interpolate`` multiplies by ``trained / size``
            ("Extending Context Window of Large Language Models via Positional Interpolation", eq. 4, here on each
            axis), which is the same as a slope rescaled; ``rescale(a)`` by its power a, so that 0 is the former and 1
            the latter; ``clamp``, of offsets, stops at the longest trained one.

    Raises:
        ValueError: If ``policy`` is unknown.
    """
    choice = as_term(policy or "extrapolate", OFFSET_POLICIES)
    if choice.name == "extrapolate":
        return positions
    if choice.name == "interpolate":
        return positions * trained / size
    if choice.name == "clamp":
        return positions.clamp(1 - trained, trained - 1)
    return positions * (trained / size) ** choice.number()


def is_trained_size(size: Any, trained: Any) -> bool:
    """Whether an axis, or all, has its trained tokens; never under export, whose graph serves every size."""
    if is_exporting():
        return False
    return tuple(size) == tuple(trained) if isinstance(size, (tuple, list)) else size == trained
