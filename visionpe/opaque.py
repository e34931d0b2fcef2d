"""Objects that other libraries hand on as they are."""

from __future__ import annotations

from typing import TypeVar

Class = TypeVar("Class", bound=type)


def opaque(cls: Class) -> Class:
    """Make of a dataclass a plain class, with the same constructor, comparison and repr.

    What sits between modules (mixed precision of ``fully_shard``, for one) opens dataclasses among the arguments,
    copies them, and rounds the tensors inside. An object that tells by its identity which pass it belongs to, or
    holds coordinates, must go through as it is.
    """
    del cls.__dataclass_fields__  # type: ignore[attr-defined]
    return cls
