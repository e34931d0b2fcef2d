"""The names of the kinds that a config gives by text, by text with a scope, or as classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def kind_name(config: Any, default: str = "") -> str:
    """The name of what a config builds: ``"mmdet.CocoDataset"`` and the class itself are ``"CocoDataset"``.

    Args:
        config: With a ``type``; anything else is of the default.
        default: Where there is none.
    """
    kind = config.get("type") if isinstance(config, Mapping) else None
    return str(getattr(kind, "__name__", kind) or default).rpartition(".")[2]


def steps(pipeline: Any) -> Iterator[tuple[str, Mapping]]:
    """Yield the steps of a pipeline, those inside of others too: their kind, and their config."""
    if isinstance(pipeline, Mapping):
        if pipeline.get("type") is not None:
            yield kind_name(pipeline), pipeline
        yield from steps(list(pipeline.values()))
    elif isinstance(pipeline, (list, tuple)):
        for each in pipeline:
            yield from steps(each)
