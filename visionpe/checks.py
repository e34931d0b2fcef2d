"""Refusing values: each range is stated once, by the option that has it, and checked where the value enters.

What is no number (no whole number, no flag, ...) is a TypeError, a number out of range a ValueError; both messages name
the argument, what was given and what is allowed. NaN and infinity are out of every range.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from numbers import Integral, Real
from typing import Any, get_args

# No message repeats more of a value than this.
LONGEST = 80


def shown(value: object) -> str:
    """A value as messages give it: its repr, cut where it is long."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a repr may do anything
        text = f"<{type(value).__name__}>"
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def check_choice(name: str, value: object, allowed: Any) -> None:
    """Refuse a value that is not listed.

    Args:
        name: Of the keyword, for the message.
        value: What was given.
        allowed: A ``Literal``, or a sequence.

    Raises:
        ValueError: If ``value`` is not one of them.
    """
    known = tuple(allowed) if isinstance(allowed, (tuple, list)) else get_args(allowed)
    if not isinstance(value, (str, Real)) or isinstance(value, bool) or value not in known:
        listed = ", ".join(str(each) or "''" for each in known)
        raise ValueError(f"{name}={shown(value)} is unknown; allowed: {listed}")


def _range(low: float | None, high: float | None, above: float | None, below: float | None) -> tuple[str, str]:
    """What a number of a range must be, and the range in words."""
    if above is not None:
        must, least = "positive" if above == 0 else f"above {above:g}", f"above {above:g}"
    else:
        must, least = f"{low or 0:g} or more", "" if low is None else f"{low:g}"
    most = f"below {below:g}" if below is not None else "" if high is None else f"{high:g}"
    if least and most:
        return must, f"{least} to {most}"
    if least:
        return must, least if above is not None else f"{least} or more"
    return must, f"up to {most}" if most else "finite ones"


def check_number(
    name: str,
    value: Any,
    low: float | None = None,
    high: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
    kind: str = "",
) -> float:
    """A finite number of a range.

    Args:
        name: Of the option, for the message.
        value: What was given.
        low, high: Range, both ends included; None for no end.
        above, below: Ends that are not included, in place of these.
        kind: What a number of the range is called, for the message.

    Returns:
        The value.

    Raises:
        TypeError: If it is no number; flags and strings are none.
        ValueError: If it is out of range, NaN or infinite.
    """
    must, allowed = _range(low, high, above, below)
    if low is not None and low > 0 and isinstance(value, Real) and value <= 0:
        must = "positive"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}={shown(value)} is no {kind or 'number'}; allowed: {allowed}")
    number: Any = value
    try:
        finite = isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        finite = False
    under = (low is not None and number < low) or (above is not None and number <= above)
    over = (high is not None and number > high) or (below is not None and number >= below)
    if not finite or under or over:
        what = f"is no {kind}" if kind else "must be " + (must if under else "less" if finite else "finite")
        raise ValueError(f"{name}={shown(value)} {what}; allowed: {allowed}")
    return number


def check_count(name: str, value: Any, low: int = 1, high: int | None = None) -> int:
    """A whole number of a range.

    Args:
        name: Of the option, for the message.
        value: What was given.
        low, high: Range, both ends included; None for no end.

    Returns:
        The value.

    Raises:
        TypeError: If it is no number; flags and strings are none.
        ValueError: If it is not whole or out of range.
    """
    allowed = f"{low} or more" if high is None else f"{low} to {high}"
    must = "positive and whole" if low == 1 else f"{low} or more and whole"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}={shown(value)} is no whole number; allowed: {allowed}")
    number: Any = value
    if not isinstance(value, Integral) or number < low:
        raise ValueError(f"{name}={shown(value)} must be {must}; allowed: {allowed}")
    if high is not None and number > high:
        raise ValueError(f"{name}={shown(value)} must be less; allowed: {allowed}")
    return int(number)


def check_counts(
    name: str, values: Any, number: int | Sequence[int] | None = None, low: int = 1, high: int | None = None
) -> tuple[int, ...]:
    """Whole numbers of a range, as a tuple.

    Args:
        name: Of the option, for the message.
        values: What was given.
        number: How many there must be, or how many there may be; None for one or more.
        low, high: Range, both ends included; None for no end.

    Raises:
        TypeError: If they are no sequence, or one of them no number.
        ValueError: If one is not whole or out of range, or there are more or fewer.
    """
    numbers = (number,) if isinstance(number, int) else number
    many = f"{numbers[0]} to {numbers[-1]}" if isinstance(numbers, range) else " or ".join(map(str, numbers or ()))
    ends = f"{low} or more" if high is None else f"{low} to {high}"
    wanted = f"{many} numbers" if many else "one number or more"
    # Of torch's and numpy's containers too, but no text.
    if isinstance(values, (str, bytes, dict, set)) or not hasattr(values, "__iter__") or not hasattr(values, "__len__"):
        raise TypeError(f"{name}={shown(values)} is no sequence; allowed: {wanted}, whole, {ends}")
    if (numbers and len(values) not in numbers) or not len(values):
        raise ValueError(f"{name}={shown(values)} must be {wanted}; allowed: whole ones, {ends}")
    try:
        return tuple(check_count(name, value, low, high) for value in values)
    except (TypeError, ValueError) as error:  # which one it is shows in the whole alone
        raise type(error)(f"{name}={shown(values)} must be {wanted}; allowed: whole ones, {ends}") from None


def check_pair(name: str, value: Any, low: int = 1, high: int | None = None) -> tuple[int, int]:
    """A whole number or two, as two: height and width.

    Raises:
        TypeError: If it is neither.
        ValueError: If one is not whole or out of range, or there are more or fewer.
    """
    try:
        sides = (value,) * 2 if isinstance(value, Real) else value
        first, second = check_counts(name, sides, 2, low, high)
    except (TypeError, ValueError) as error:
        allowed = f"{low} or more" if high is None else f"{low} to {high}"
        raise type(error)(
            f"{name}={shown(value)} is no size; allowed: a whole number or (height, width), each {allowed}"
        ) from None
    return first, second


def check_numbers(name: str, values: Any, number: int, low: float | None = None, high: float | None = None) -> None:
    """Finite numbers of a range, as many as there must be; for the errors see :func:`check_counts`."""
    if isinstance(values, (str, bytes, dict, set)) or not hasattr(values, "__iter__") or not hasattr(values, "__len__"):
        raise TypeError(f"{name}={shown(values)} is no sequence; allowed: {number} numbers")
    if len(values) != number:
        raise ValueError(f"{name}={shown(values)} holds {len(values)}; allowed: {number} numbers")
    try:
        for value in values:
            check_number(name, value, low, high)
    except (TypeError, ValueError) as error:
        allowed = _range(low, high, None, None)[1]
        raise type(error)(
            f"{name}={shown(values)} holds something else; allowed: {number} numbers, {allowed}"
        ) from None


def check_flag(name: str, value: Any) -> bool:
    """True or False (1 and 0 count).

    Raises:
        TypeError: If it is neither; a text such as "no" would count as True.
    """
    known = isinstance(value, Integral) or type(value).__name__ in ("bool_", "bool")  # of numpy
    if known and value in (True, False):
        return bool(value)
    raise TypeError(f"{name}={shown(value)} is no flag; allowed: True, False")


def check_text(name: str, value: Any, allowed: str) -> str:
    """A text.

    Args:
        name: Of the option, for the message.
        value: What was given.
        allowed: What it may say, for the message.

    Raises:
        TypeError: If it is none.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name}={shown(value)} is no text; allowed: {allowed}")
    return value
