"""Text in Markdown tables."""

from __future__ import annotations


def cell(text: object) -> str:
    """Text that stays in its cell: no bar ends it, no line breaks it."""
    return " ".join(str(text).replace("|", "\\|").split())
