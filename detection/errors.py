"""The one error whose text is all the user needs to see."""

from __future__ import annotations


class UsageError(Exception):
    """A mistake in what the user gave; its text is all the user needs to see."""
