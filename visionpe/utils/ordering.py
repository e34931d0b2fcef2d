"""Names in the order that people and timm count them."""

from __future__ import annotations

import re


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sorts numbers by value, 2 before 10, and letters without their case, as timm does; the name settles ties."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [(0, int(part), "") if i % 2 else (1, 0, part) for i, part in enumerate(parts) if part], name
