"""Values from the command line."""

from __future__ import annotations

import ast
from typing import Any


def literal(text: str) -> Any:
    """A Python literal (``24``, ``(1, 2)``, ``True``), or the text as it is."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
