"""Print every dependency of this package at its lower bound, as pip takes them: ``torch==X timm==Y ...``."""

from __future__ import annotations

from pathlib import Path

import tomllib

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def oldest(dependencies: list[str]) -> list[str]:
    """Each ``name>=version`` as ``name==version``.

    Raises:
        ValueError: If one of them states another bound, or none.
    """
    pinned = []
    for dependency in dependencies:
        name, found, version = dependency.partition(">=")
        if not found or not name.isidentifier() or not version.replace(".", "").isdigit():
            raise ValueError(f"{dependency!r} in {PROJECT.name} states no plain lower bound; expected: name>=version")
        pinned.append(f"{name}=={version}")
    return pinned


if __name__ == "__main__":
    print(*oldest(tomllib.loads(PROJECT.read_text())["project"]["dependencies"]))
