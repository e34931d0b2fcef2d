"""Which rows there are to fill: models, policies and controls, protocols and resolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import visionpe
from visionpe.policy.grammar import parse_policy
from visionpe.scaling.controls import tile_grid
from visionpe.scaling.models import ModelEntry
from visionpe.scaling.options import ALL, AUTO, CONTROLS, DEFAULT, DOWNSCALE, TILING, Control, Protocol
from visionpe.scaling.sizes import Resolution, Size, resolve_all
from visionpe.utils.errors import InputError, first_line


@dataclass(frozen=True)
class Task:
    """One row to fill; ``policy`` is ``default``, a control (``downscale``, ``tiling``) or a policy of the model."""

    entry: ModelEntry
    policy: str
    protocol: Protocol
    size: Size

    @property
    def is_control(self) -> bool:
        return self.policy in CONTROLS

    @property
    def input_size(self) -> Size:
        """Height and width that reach the model, pixels."""
        return self.entry.info.trained if self.is_control else self.size

    @property
    def tokens(self) -> int | None:
        """Of an image, over all its tiles; None for a model without patches."""
        grows = "patch_resize" in _parts(self.policy)  # patches that grow with the image keep the tokens of training
        each = self.entry.info.tokens(self.entry.info.trained if grows else self.input_size)
        if each is None or self.policy != TILING:
            return each
        return each * prod(tile_grid(self.size, self.entry.info.trained))

    @property
    def is_native(self) -> bool:
        """Whether the image is what the model was trained for: its own size, at which all policies agree."""
        return self.size == self.entry.info.trained

    @property
    def pixels(self) -> int:
        """Of an image, by which the work is measured."""
        return self.size[0] * self.size[1]


def _parts(name: str) -> list[str]:
    try:
        return [choice.name for choice in parse_policy(name)]
    except ValueError as error:
        raise InputError(f"--policy {name}: {first_line(error)}") from None


def _try_out(entry: ModelEntry, names: Sequence[str]) -> None:
    """Refuse what only the model itself can tell: parts that exclude each other, numbers out of its range."""
    model = entry.build(weights=False)
    for name in names:
        try:
            visionpe.set_policy(model, name)
        except ValueError as error:
            raise InputError(f"--policy {name}: cannot be set on {entry.label} ({first_line(error)})") from None


def choose_policies(entries: Sequence[ModelEntry], asked: Sequence[str]) -> tuple[list[list[str]], list[str]]:
    """Which policies each model runs under.

    Args:
        entries: The models.
        asked: Names of policies, also with numbers and joined by ``+``, ``default`` (as built), ``all`` (each that
            applies, alone; with ``default``, but for the one in force) or ``auto`` (chosen at each resolution).

    Returns:
        One list a model, and notes on what was left out. A model to which no name applies runs as built.

    Raises:
        InputError: If a name applies to none of the models, or cannot be set on a model that knows its parts.
    """
    special = (DEFAULT, ALL, AUTO)
    named = [name for name in dict.fromkeys(asked) if name not in special]
    needs = {name: set(_parts(name)) for name in named}
    known = [{part for name in entry.info.policies for part in _parts(name)} for entry in entries]
    for name in named:
        if not any(needs[name] <= has for has in known):
            applies = {s.label: ", ".join((DEFAULT, *s.info.policies)) for s in entries}
            raise InputError(
                f"--policy {name}: applies to none of the models; allowed: all, or "
                + "; ".join(f"for {label}: {names}" for label, names in applies.items())
            )
    chosen, notes = [], []
    for entry, has in zip(entries, known):
        every = entry.info.policies[DEFAULT in asked :] if ALL in asked else ()  # the first is that of the default
        listed = [name for name in entry.info.policies if name in asked or name in every]
        further = [name for name in named if name not in listed and needs[name] <= has]
        if further:
            _try_out(entry, further)
        names = [DEFAULT] * (DEFAULT in asked) + listed + further
        names += [AUTO] * (AUTO in asked and bool(entry.info.policies))
        if missing := [name for name in named if name not in names]:
            rest = "" if names else ": it runs as built"
            notes.append(f"--policy {' '.join(missing)} does not apply to {entry.label}{rest}")
        chosen.append(names or [DEFAULT])
    return chosen, list(dict.fromkeys(notes))


def plan(
    entries: Sequence[ModelEntry],
    policies: Sequence[Sequence[str]],
    protocols: Sequence[Protocol],
    asked: Sequence[Resolution],
    controls: Sequence[Control] = (DOWNSCALE,),
) -> list[Task]:
    """Every row to fill: for each model the runs as built first, then the controls, then its policies.

    Raises:
        InputError: If a resolution is no multiple of a model's patch.
    """
    tasks = []
    for entry, names in zip(entries, policies):
        info = entry.info
        sizes = resolve_all(asked, info.trained, info.patch, entry.label)
        ordered = [DEFAULT] * (DEFAULT in names) + list(controls) + [name for name in names if name != DEFAULT]
        tasks += [Task(entry, n, protocol, size) for n in ordered for protocol in protocols for size in sizes]
    return tasks
