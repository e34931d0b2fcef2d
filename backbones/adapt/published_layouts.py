"""From keys of the authors' files to those of timm's models."""

from __future__ import annotations

from collections.abc import Mapping


def renamed(key: str, beginnings: Mapping[str, str]) -> str:
    """A key whose beginning is one of these, with another in its place; any other as it is."""
    for before, after in beginnings.items():
        if key.startswith(before):
            return after + key[len(before) :]
    return key
