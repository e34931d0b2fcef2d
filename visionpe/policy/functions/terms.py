"""Policies as the functions of this package take them."""

from __future__ import annotations

from collections.abc import Sequence

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


def refuse_export(choice: PolicyTerm, allowed: Sequence[str]) -> None:
    """What is made for one size cannot be part of a graph that serves all.

    Raises:
        ValueError: Under ``torch.export``.
    """
    if is_exporting():
        raise ValueError(
            f"policy={str(choice)!r} cannot be exported: its arithmetic is that of one size; allowed: "
            f"{', '.join(allowed)}"
        )
