"""Policies as the functions of this package take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from visionpe.policy.grammar import PolicyTerm, parse_policy
from visionpe.tracing import is_exporting


def as_term(policy: str | PolicyTerm, allowed: Sequence[str]) -> PolicyTerm:
    """A policy by its name, with its numbers.

    Raises:
        ValueError: If it is not one of ``allowed``.
    """
    if not isinstance(policy, PolicyTerm):
        policy = PolicyTerm(policy) if policy in allowed else parse_policy(policy)[0]
    if policy.name not in allowed:
        raise ValueError(f"policy={str(policy)!r} is unknown; allowed: {', '.join(allowed)}")
    return policy


def refuse_export(choice: PolicyTerm, allowed: Sequence[str], sizes: Sequence[Any]) -> None:
    """What is made for one size cannot be part of a graph that serves several.

    Args:
        choice: The policy.
        allowed: What can.
        sizes: That it is made for; where one is a symbol, the graph is for several.

    Raises:
        ValueError: Under ``torch.export`` with such a size.
    """
    if is_exporting() and not all(isinstance(size, int) for size in sizes):
        raise ValueError(
            f"policy={str(choice)!r} cannot be exported: its arithmetic is that of one size; allowed: "
            f"{', '.join(allowed)}"
        )
