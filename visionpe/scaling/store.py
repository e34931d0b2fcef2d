"""Finished rows on disk: one small file each, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from visionpe.utils.files import write_atomic

# Of what decides a number.
VERSIONS = {"torch": torch.__version__, **{name: version(name) for name in ("timm", "visionpe")}}


def key_of(what: dict[str, Any]) -> str:
    """A short hash of everything that decides a row."""
    text = json.dumps(what, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


class Store:
    """Rows below ``<out>/rows``.

    Args:
        out: The output directory.
    """

    def __init__(self, out: Path) -> None:
        self.directory = out / "rows"

    def load(self, key: str, *names: str) -> dict[str, Any] | None:
        """A finished row, or None if there is none that can be read.

        Args:
            key: Of the row.
            names: What it must hold; a file without them is none of ours.
        """
        try:
            row = json.loads((self.directory / f"{key}.json").read_text())
        except (OSError, ValueError):
            return None
        return row if isinstance(row, dict) and row.keys() >= set(names) else None

    def save(self, key: str, row: dict[str, Any]) -> None:
        """Keep a row."""
        write_atomic(self.directory / f"{key}.json", json.dumps(row, allow_nan=False))
