"""How the command line names encodings: ``all``, ``rope_mixed+ape``, ``irpe:method=cross,on=qkv``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import visionpe
from visionpe.base import Composition
from visionpe.benchmarks.options import DEPTH, DIM, HEADS
from visionpe.utils.errors import InputError
from visionpe.utils.parsing import literal


def read_spec(text: str) -> str | dict[str, Any]:
    """Read ``NAME`` or ``NAME:KEY=VALUE,...``; a value that is no Python literal is text.

    Raises:
        InputError: If an option has no such form.
    """
    name, colon, rest = text.partition(":")
    if not colon:
        return name
    options: dict[str, Any] = {"name": name}
    for part in rest.split(","):
        key, equals, value = part.partition("=")
        if not equals or not key.isidentifier():
            raise InputError(f"--encodings {text}: {part!r} is not KEY=VALUE; allowed: name:key=value,key=value")
        options[key] = literal(value)
    return options


def create(text: str, *, heads: int = HEADS, grid_size: tuple[int, int] = (14, 14)) -> Composition:
    """Build what ``text`` names, for ViT-S or for fewer of its heads.

    Raises:
        InputError: If it names nothing that can be built.
    """
    context = {"dim": DIM // HEADS * heads, "num_heads": heads, "depth": DEPTH, "grid_size": grid_size}
    try:
        return Composition(visionpe.registry.create_encodings(read_spec(text), **context))
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError(f"--encodings {text}: {error}") from error


def inside_attention(text: str) -> bool:
    """Whether an encoding acts on queries, keys, values or logits."""
    encoding = create(text)
    return any(encoding.at(site) for site in ("rotate", "bias", "mix"))


def expand(texts: Iterable[str]) -> list[str]:
    """The names, without doubles, ``none`` first and ``all`` as every registered encoding."""
    names = ["none"]
    for text in texts:
        names += visionpe.list_encodings() if text == "all" else [text]
    return list(dict.fromkeys(names))
