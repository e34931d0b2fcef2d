"""Policies by name: how they are written, and what holds them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from typing import Any, ClassVar, NamedTuple

DEFAULT = "default"


@dataclass(frozen=True)
class Number:
    """A number that a policy may be given in parentheses.

    Args:
        name: For messages.
        default: Where none is given; None where it comes from the model.
        low, high: Allowed range, both ends included.
    """

    name: str
    default: float | None
    low: float = -inf
    high: float = inf


# The policies that take numbers; all others stand for themselves.
NUMBERS: dict[str, tuple[Number, ...]] = {
    "rescale": (Number("exponent", 0.5, 0, 2),),
    "yarn": (Number("alpha", 0.25, 0), Number("beta", 1.0, 0)),
    "riflex": (Number("share", 1.0, 0.01, 1),),
    "p": (Number("fraction", 0.25, 0, 1),),
    "temperature": (Number("exponent", 1.0, -8, 8),),
    "decay": (Number("factor", 0.9, 0, 1),),
    "window_aware": (Number("window", None, 1),),
}
# Second names.
ALIASES = {"fractional": "interpolate"}


class Choice(NamedTuple):
    """One policy of several, with its numbers."""

    name: str
    values: tuple[float, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{v:g}' for v in self.values)})" if self.values else self.name

    def number(self, index: int = 0) -> float:
        """A number that was given, or its default.

        Raises:
            ValueError: If it has none.
        """
        if index < len(self.values):
            return self.values[index]
        default = NUMBERS[self.name][index].default
        if default is None:
            wanted = NUMBERS[self.name][index].name
            raise ValueError(f"policy={self.name!r} needs its {wanted}, as in '{self.name}(7)': the model has none")
        return default


@lru_cache(maxsize=1024)
def parse_policy(text: str) -> tuple[Choice, ...]:
    """``"yarn(0.25, 1)+temperature"`` to its parts.

    Raises:
        ValueError: If it cannot be read, a policy takes no such numbers, or is named twice.
    """
    choices = []
    for part in str(text).split("+"):
        match = re.fullmatch(r"\s*(\w+)\s*(?:\(([^()]*)\)\s*)?", part)
        if not match:
            raise ValueError(f"policy={text!r} cannot be read; allowed: 'name', 'name(0.5)', and these joined by '+'")
        name, inside = ALIASES.get(match[1], match[1]), match[2]
        try:
            values = tuple(float(value) for value in inside.split(",")) if inside is not None else ()
        except ValueError:
            raise ValueError(f"policy={text!r}: ({inside}) are no numbers") from None
        known = NUMBERS.get(name, ())
        if len(values) > len(known):
            allowed = ", ".join(number.name for number in known) or "none"
            raise ValueError(f"policy={text!r}: {name!r} is given {len(values)} numbers; allowed: {allowed}")
        for number, value in zip(known, values):
            if not number.low <= value <= number.high:
                raise ValueError(
                    f"policy={text!r}: {number.name} {value:g} is out of range; allowed: {number.low:g} to "
                    f"{number.high:g}"
                )
        choices.append(Choice(name, values))
    names = [choice.name for choice in choices]
    if len(set(names)) < len(names):
        raise ValueError(f"policy={text!r} names a policy twice")
    return tuple(choices)


def join(choices: Sequence[Choice]) -> str:
    """The inverse of :func:`parse_policy`."""
    return "+".join(str(choice) for choice in choices)


class Adapts:
    """What does something at sizes that were not trained, by the name of a policy.

    One of ``policies`` is in force at a time, the first by default; any of ``modifiers`` may be in force besides.

    Attributes:
        policy: What is in force, as :func:`parse_policy` reads it; None for nothing.
        built_policy: What was in force when the model was built.
    """

    policies: ClassVar[tuple[str, ...]] = ()
    modifiers: ClassVar[tuple[str, ...]] = ()
    built_policy: str | None
    _choices: tuple[Choice, ...] = ()

    @property
    def policy(self) -> str | None:
        return join(self._choices) or None

    @policy.setter
    def policy(self, policy: str | None) -> None:
        self._choices = parse_policy(policy) if policy else ()  # once, not in every forward pass

    @property
    def called(self) -> str:
        """What it is called in messages."""
        return getattr(self, "name", "") or type(self).__name__

    def knows(self, choice: Choice) -> bool:
        """Whether a policy applies here."""
        return choice.name in self.policies or choice.name in self.modifiers

    @property
    def choices(self) -> tuple[Choice, ...]:
        """What is in force, part by part."""
        return self._choices

    @property
    def chosen(self) -> Choice | None:
        """What is in force besides ``modifiers``."""
        return next((choice for choice in self.choices if choice.name not in self.modifiers), None)

    def modifier(self, name: str) -> Choice | None:
        """One of ``modifiers``, if it is in force."""
        return next((choice for choice in self.choices if choice.name == name), None)

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
            if not self.knows(choice):
                allowed = ", ".join((*self.policies, *self.modifiers)) or "none: it has no table to adapt"
                raise ValueError(f"policy={policy!r} is unknown to {self.called!r}; allowed: {allowed}")
        own = [choice for choice in choices if choice.name not in self.modifiers]
        if len(own) > 1:
            raise ValueError(
                f"policy={policy!r}: {' and '.join(map(str, own))} exclude each other in {self.called!r}; allowed: one "
                f"of {', '.join(self.policies)}"
            )
        kept = own or ([self.chosen] if self.chosen else [])
        rest = [choice for choice in choices if choice.name in self.modifiers]
        self._choices = (*kept, *rest)

    def as_built(self) -> None:
        """Take what is in force now for what the model was built with."""
        self.built_policy = self.policy


def adaptable(modules: Any) -> list[Adapts]:
    """Those of some modules that know policies."""
    return [m for m in modules if isinstance(m, Adapts) and (m.policies or m.modifiers)]
