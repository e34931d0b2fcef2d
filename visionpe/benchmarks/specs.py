"""How the command line names encodings: ``all``, ``rope_mixed+ape``, ``irpe(method=cross, on=qkv)``."""

from __future__ import annotations

from collections.abc import Iterable

import visionpe
from visionpe.benchmarks.options import DEPTH, DIM, HEADS
from visionpe.composition import Composition
from visionpe.utils.errors import InputError


def create(text: str, *, heads: int = HEADS, grid_size: tuple[int, int] = (14, 14)) -> Composition:
    """Build what ``text`` names, for ViT-S or for fewer of its heads.

    Raises:
        InputError: If it names nothing that can be built.
    """
    context = {"dim": DIM // HEADS * heads, "num_heads": heads, "depth": DEPTH, "grid_size": grid_size}
    try:
        return Composition(visionpe.registry.create_encodings(text, **context))
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError(f"--encodings {text}: {error}") from error


def inside_attention(text: str) -> bool:
    """Whether an encoding acts on queries, keys, values or logits."""
    encoding = create(text)
    return any(encoding.at(site) for site in ("rotate", "bias", "value", "output", "mix"))


def expand(texts: Iterable[str]) -> list[str]:
    """The names, without doubles, ``none`` first and ``all`` as every registered encoding."""
    names = ["none"]
    for text in texts:
        name, colon, options = text.partition(":")
        text = f"{name}({options})" if colon and "(" not in name else text  # as options were written before
        names += visionpe.list_encodings() if text == "all" else [text]
    return list(dict.fromkeys(names))
