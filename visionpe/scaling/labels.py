"""Short names for models, and which of them differ in the training seed only."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence

from visionpe.scaling.models import ModelEntry


def assign_labels(entries: Sequence[ModelEntry]) -> None:
    """Give every entry a label; those that differ in the training seed only share one.

    The label is the model's name, with the directory of the run (or the name of the checkpoint) where the name alone
    would stand for different things.

    Args:
        entries: Labelled in place.
    """
    groups: dict[str, list[ModelEntry]] = defaultdict(list)
    for entry in entries:
        recipe = [entry.name, entry.kwargs, entry.trained, entry.data, entry.run is not None]
        groups[json.dumps(recipe, sort_keys=True, default=str)].append(entry)
    # The same seed twice is no repetition: these runs differ in something that their files do not tell.
    parts = []
    for group in groups.values():
        distinct = len({entry.seed for entry in group}) == len(group)
        parts.extend([group] if distinct else [[entry] for entry in group])
    names = [group[0].name for group in parts]
    taken: set[str] = set()
    for group, name in zip(parts, names):
        first = group[0]
        text = name
        if names.count(name) > 1:
            text = f"{name} ({first.origin})"
        number = 2
        while text in taken:
            text, number = f"{text.removesuffix(f' #{number - 1}')} #{number}", number + 1
        taken.add(text)
        for entry in group:
            entry.label = text
