"""How resolution policies are written: ``"yarn(0.25, 1)+temperature"``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf, isfinite
from typing import NamedTuple

from visionpe.checks import shown

DEFAULT = "default"


@dataclass(frozen=True)
class Number:
    """A number that a policy may be given in parentheses.

    Args:
        name: For messages.
        default: Where none is given; None where it comes from the model.
        low, high: Allowed range, both ends included; infinity is in none.
        whole: No fractions.
        ordered: It must be above the number before it.
    """

    name: str
    default: float | None
    low: float = -inf
    high: float = inf
    whole: bool = False
    ordered: bool = False

    @property
    def range(self) -> str:
        """Its range in words."""
        return f"{self.low:g} or more" if self.high == inf else f"{self.low:g} to {self.high:g}"


# The policies that take numbers; all others stand for themselves.
NUMBERS: dict[str, tuple[Number, ...]] = {
    "rescale": (Number("exponent", 0.5, 0, 2),),
    "yarn": (Number("alpha", 0.25, 0), Number("beta", 1.0, 0, ordered=True)),
    "riflex": (Number("share", 1.0, 0.01, 1),),
    "p": (Number("fraction", 0.25, 0, 1),),
    "temperature": (Number("exponent", 1.0, -8, 8),),
    "decay": (Number("factor", 0.9, 0, 1),),
    "window_aware": (Number("window", None, 1, 1024, whole=True),),
}
# Second names.
ALIASES = {"fractional": "interpolate"}


def _short(value: float) -> str:
    """A number in few digits, all that it needs to be read back."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


class PolicyTerm(NamedTuple):
    """One policy of several, with its numbers."""

    name: str
    values: tuple[float, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(_short, self.values))})" if self.values else self.name

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


def parse_policy(text: str) -> tuple[PolicyTerm, ...]:
    """``"yarn(0.25, 1)+temperature"`` to its parts.

    Raises:
        TypeError: If it is no text.
        ValueError: If it cannot be read, a policy takes no such numbers, or is named twice.
    """
    if not isinstance(text, str):
        raise TypeError(f"policy={shown(text)} is no name; allowed: 'name', 'name(0.5)', and these joined by '+'")
    return _parsed(str(text))


@lru_cache(maxsize=1024)
def _parsed(text: str) -> tuple[PolicyTerm, ...]:
    choices = []
    for part in text.split("+"):
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
        _check_numbers(text, known, values)
        choices.append(PolicyTerm(name, values))
    names = [choice.name for choice in choices]
    if len(set(names)) < len(names):
        raise ValueError(f"policy={text!r} names a policy twice")
    return tuple(choices)


def _check_numbers(text: str, known: Sequence[Number], values: Sequence[float]) -> None:
    """Refuse numbers of a policy that are out of range or out of order; those not given are as by default."""
    for number, value in zip(known, values):
        if number.whole and isfinite(value) and value % 1:
            raise ValueError(f"policy={text!r}: {value:g} tokens are no {number.name}; allowed: whole ones")
        if not isfinite(value) or not number.low <= value <= number.high:
            raise ValueError(f"policy={text!r}: {number.name} {value:g} is out of range; allowed: {number.range}")
    if not values:
        return
    all_ = [*values, *(number.default for number in known[len(values) :])]
    for i, number in enumerate(known):
        low, high = all_[i - 1], all_[i]
        if number.ordered and low is not None and high is not None and low >= high:
            before = known[i - 1].name
            raise ValueError(
                f"policy={text!r}: {before} {low:g} is not below {number.name} {high:g}; allowed: {before} below "
                f"{number.name}, both {number.range}"
            )


def format_policy(choices: Sequence[PolicyTerm]) -> str:
    """The inverse of :func:`parse_policy`."""
    return "+".join(str(choice) for choice in choices)
