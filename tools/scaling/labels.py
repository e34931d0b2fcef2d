"""Short names for models, and which of them differ in the training seed only."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence

from scaling.models import Subject


def label(subjects: Sequence[Subject]) -> None:
    """Give every subject a label; those that differ in the training seed only share one.

    The label is the model's name, with the directory of the run (or the name of the checkpoint) where the name alone
    would stand for different things.

    Args:
        subjects: Labelled in place.
    """
    groups: dict[str, list[Subject]] = defaultdict(list)
    for subject in subjects:
        recipe = [subject.name, subject.kwargs, subject.trained, subject.data, subject.run is not None]
        groups[json.dumps(recipe, sort_keys=True, default=str)].append(subject)
    # The same seed twice is no repetition: these runs differ in something that their files do not tell.
    parts = []
    for group in groups.values():
        distinct = len({subject.seed for subject in group}) == len(group)
        parts.extend([group] if distinct else [[subject] for subject in group])
    names = [group[0].name for group in parts]
    taken: set[str] = set()
    for group, name in zip(parts, names):
        first = group[0]
        text = name
        if names.count(name) > 1:
            own = first.run.name if first.run else first.checkpoint.stem if first.checkpoint else "random weights"
            text = f"{name} ({own})"
        number = 2
        while text in taken:
            text, number = f"{text.removesuffix(f' #{number - 1}')} #{number}", number + 1
        taken.add(text)
        for subject in group:
            subject.label = text
