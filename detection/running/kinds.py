"""The names of the kinds that a config gives by text, by text with a scope, or as classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def kind_name(config: Any, default: str = "") -> str:
    """The name of what a config builds: ``"mmdet.CocoDataset"`` and the class itself are ``"CocoDataset"``.

    Args:
        config: With a ``type``; anything else is of the default.
        default: Where there is none.
    """
    kind = config.get("type") if isinstance(config, Mapping) else None
    return str(getattr(kind, "__name__", kind) or default).rpartition(".")[2]
