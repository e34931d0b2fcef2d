"""The part of a model that has a resolution policy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from torch import nn

from visionpe.policy.grammar import DEFAULT, PolicyTerm, format_policy, parse_policy


class HasPolicy:
    """Mixin of modules that have a resolution policy: what they do at sizes other than the trained one.

    One of ``policies`` is in force at a time, the first by default; any of ``modifiers`` may be in force besides.

    Attributes:
        policy: The policy in force, as :func:`~visionpe.policy.parse_policy` reads it; None where there is none.
        built_policy: The policy that was in force when the model was built.
        without_policy: Why no policy applies, where that is for a reason that the user chose.
    """

    policies: ClassVar[tuple[str, ...]] = ()
    modifiers: ClassVar[tuple[str, ...]] = ()
    built_policy: str | None
    without_policy: str = ""
    _terms: tuple[PolicyTerm, ...] = ()

    @property
    def policy(self) -> str | None:
        return format_policy(self._terms) or None

    @policy.setter
    def policy(self, policy: str | None) -> None:
        self._terms = parse_policy(policy) if policy else ()  # once, not in every forward pass

    @property
    def display_name(self) -> str:
        """What it is called in messages."""
        return getattr(self, "name", "") or type(self).__name__

    def supports_policy(self, choice: PolicyTerm) -> bool:
        """Whether a policy applies here."""
        return choice.name in self.policies or choice.name in self.modifiers

    @property
    def policy_terms(self) -> tuple[PolicyTerm, ...]:
        """What is in force, part by part."""
        return self._terms

    @property
    def main_policy(self) -> PolicyTerm | None:
        """What is in force besides ``modifiers``."""
        return next((choice for choice in self.policy_terms if choice.name not in self.modifiers), None)

    def modifier(self, name: str) -> PolicyTerm | None:
        """One of ``modifiers``, if it is in force."""
        return next((choice for choice in self.policy_terms if choice.name == name), None)

    def set_policy(self, policy: str) -> None:
        """Choose what to do at sizes other than the trained one; parameters and state dict stay as they are.

        Args:
            policy: One of ``policies``, any of ``modifiers``, joined by ``+``. Without one of ``policies`` that in
                force stays; modifiers that are not named end. ``"default"``: as built.

        Raises:
            ValueError: If one of them is unknown here, or two exclude each other.
        """
        if policy == DEFAULT:
            self.policy = self.built_policy
            return
        choices = parse_policy(policy)
        for choice in choices:
            if not self.supports_policy(choice):
                allowed = ", ".join((*self.policies, *self.modifiers)) or "none: it has no table to adapt"
                raise ValueError(f"policy={policy!r} is unknown to {self.display_name!r}; allowed: {allowed}")
        own = [choice for choice in choices if choice.name not in self.modifiers]
        if len(own) > 1:
            raise ValueError(
                f"policy={policy!r}: {' and '.join(map(str, own))} exclude each other in {self.display_name!r}; "
                f"allowed: one of {', '.join(self.policies)}"
            )
        kept = own or ([self.main_policy] if self.main_policy else [])
        rest = [choice for choice in choices if choice.name in self.modifiers]
        self._terms = (*kept, *rest)

    def mark_as_built(self) -> None:
        """Take what is in force now for what the model was built with."""
        self.built_policy = self.policy


def policy_holders(modules: Iterable[nn.Module]) -> list[HasPolicy]:
    """The modules to which some policy applies."""
    return [m for m in modules if isinstance(m, HasPolicy) and (m.policies or m.modifiers)]
