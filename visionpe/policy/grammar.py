"""How resolution policies are written: ``"yarn(0.25, 1)+temperature"``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from typing import NamedTuple

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


class PolicyTerm(NamedTuple):
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
def parse_policy(text: str) -> tuple[PolicyTerm, ...]:
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
        choices.append(PolicyTerm(name, values))
    names = [choice.name for choice in choices]
    if len(set(names)) < len(names):
        raise ValueError(f"policy={text!r} names a policy twice")
    return tuple(choices)


def format_policy(choices: Sequence[PolicyTerm]) -> str:
    """The inverse of :func:`parse_policy`."""
    return "+".join(str(choice) for choice in choices)
