"""A keyword with a few allowed values."""

from __future__ import annotations

from typing import Any, get_args


def check_choice(name: str, value: object, allowed: Any) -> None:
    """Refuse a value that a ``Literal`` does not list.

    Args:
        name: Of the keyword, for the message.
        value: What was given.
        allowed: The ``Literal``.

    Raises:
        ValueError: If ``value`` is not one of them.
    """
    if value not in get_args(allowed):
        raise ValueError(f"{name}={value!r} is unknown; allowed: {', '.join(get_args(allowed))}")
