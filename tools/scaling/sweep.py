"""The walk over models, policies, protocols and resolutions, skipping what is already measured."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

import visionpe
from scaling.data import Source, batches
from scaling.errors import InputError, first_line
from scaling.measure import measure
from scaling.memory import is_out_of_memory
from scaling.models import Subject
from scaling.protocols import Protocol
from scaling.sizes import Resolution, Size, factor_of, resolve_all
from scaling.store import Store, key_of

DEFAULT, DOWNSCALE, ALL = "default", "downscale", "all"
OK, OUT_OF_MEMORY, FAILED = "ok", "out of memory", "failed"
VERSIONS = {"torch": torch.__version__, **{name: version(name) for name in ("timm", "visionpe")}}


@dataclass(frozen=True)
class Settings:
    """What holds for every row.

    Args:
        device: Where to run.
        batch_size: Images a batch.
        amp: Half precision by autocast.
        limit: Images to evaluate, or None for all.
        seed: Of the places on the canvas and the choice of images.
        workers: Processes that prepare images.
        skip_corrupt: Leave unreadable images out.
        fresh: Measure again what is already stored.
    """

    device: torch.device
    batch_size: int = 100
    amp: bool = False
    limit: int | None = None
    seed: int = 0
    workers: int = 0
    skip_corrupt: bool = False
    fresh: bool = False


@dataclass(frozen=True)
class Task:
    """One row to fill; ``policy`` is ``default``, ``downscale`` or one that the model has."""

    subject: Subject
    policy: str
    protocol: Protocol
    size: Size

    @property
    def input_size(self) -> Size:
        """Height and width that reach the model, pixels."""
        return self.subject.facts.trained if self.policy == DOWNSCALE else self.size


def choose_policies(subjects: Sequence[Subject], asked: Sequence[str]) -> tuple[list[list[str]], list[str]]:
    """Which policies each model runs under.

    Args:
        subjects: The models.
        asked: Names of policies, ``default`` (as built) or ``all`` (each that applies).

    Returns:
        One list a model, and notes on what was left out. A model to which no name applies runs as built.

    Raises:
        InputError: If a name applies to none of the models.
    """
    special = (DEFAULT, ALL)
    for name in asked:
        if name not in special and not any(name in subject.facts.policies for subject in subjects):
            applies = {s.label: ", ".join((DEFAULT, *s.facts.policies)) for s in subjects}
            raise InputError(
                f"--policy {name}: applies to none of the models; allowed: all, or "
                + "; ".join(f"for {label}: {names}" for label, names in applies.items())
            )
    chosen, notes = [], []
    for subject in subjects:
        has = subject.facts.policies
        names = [DEFAULT] if DEFAULT in asked else []
        names += [name for name in has if name in asked or ALL in asked]
        if missing := [name for name in asked if name not in (*special, *has)]:
            rest = "" if names else ": it runs as built"
            notes.append(f"--policy {' '.join(missing)} does not apply to {subject.label}{rest}")
        chosen.append(names or [DEFAULT])
    return chosen, list(dict.fromkeys(notes))


def plan(
    subjects: Sequence[Subject],
    policies: Sequence[Sequence[str]],
    protocols: Sequence[Protocol],
    asked: Sequence[Resolution],
) -> list[Task]:
    """Every row to fill: for each model the runs as built first, then the ``downscale`` baseline, then its policies.

    Raises:
        InputError: If a resolution is no multiple of a model's patch.
    """
    tasks = []
    for subject, names in zip(subjects, policies):
        facts = subject.facts
        sizes = resolve_all(asked, facts.trained, facts.patch, subject.label)
        ordered = [DEFAULT] * (DEFAULT in names) + [DOWNSCALE] + [name for name in names if name != DEFAULT]
        tasks += [Task(subject, n, protocol, size) for n in ordered for protocol in protocols for size in sizes]
    return tasks


def _key(task: Task, source: Source, settings: Settings, device_name: str) -> str:
    subject = task.subject
    what = {
        **subject.key(),
        "policy": task.policy,
        "protocol": task.protocol,
        "size": task.size,
        "images": [source.fingerprint, settings.limit, settings.seed],
        "view": subject.view(source.name, settings.seed).key(),
        "how": [settings.batch_size, settings.amp, device_name, settings.skip_corrupt, torch.get_num_threads()],
        "versions": VERSIONS,
    }
    return key_of(what)


def _fill(task: Task, model: nn.Module, source: Source, settings: Settings) -> dict[str, Any]:
    """Measure one row; a lack of memory or a refusal of the size becomes its status."""
    facts = task.subject.facts
    try:
        shown = batches(
            source,
            protocol=task.protocol,
            size=task.size,
            spec=task.subject.view(source.name, settings.seed),
            indices=source.subset(settings.limit, settings.seed),
            batch_size=settings.batch_size,
            workers=settings.workers,
            skip_corrupt=settings.skip_corrupt,
        )
        target = facts.trained if task.policy == DOWNSCALE else None
        result = measure(model, shown, device=settings.device, amp=settings.amp, downscale_to=target)
        row = {"status": OK, "reason": "", **result}
    except InputError:
        raise
    except Exception as error:
        row = {"status": OUT_OF_MEMORY if is_out_of_memory(error) else FAILED, "reason": first_line(error)}
    if row["status"] == OUT_OF_MEMORY:  # outside the handler, whose traceback would keep the tensors alive
        gc.collect()
        if settings.device.type == "cuda":
            torch.cuda.empty_cache()
    return row | {"tokens": facts.tokens(task.input_size)}


def sweep(
    tasks: Sequence[Task],
    source: Source,
    settings: Settings,
    store: Store,
    device_name: str,
    on_row: Callable[[Task, bool], None] = lambda task, stored: None,
) -> Iterator[dict[str, Any]]:
    """Fill every row, taking from the store what is already there.

    Args:
        tasks: From :func:`plan`; those of one model stand together.
        source: The images.
        settings: What holds for every row.
        store: Finished rows. Rows that ran out of memory are tried again.
        device_name: Part of what decides a row, as speed and memory depend on it.
        on_row: Called after each row, with whether it was already stored.

    Yields:
        Rows in the order of ``tasks``.

    Raises:
        InputError: If a checkpoint does not fit its model or an image cannot be read.
    """
    built: tuple[Subject, nn.Module] | None = None
    policy = DEFAULT
    for task in tasks:
        subject = task.subject
        key = _key(task, source, settings, device_name)
        row = None if settings.fresh else store.load(key)
        stored = row is not None and row["status"] != OUT_OF_MEMORY
        if row is None or not stored:
            wanted = DEFAULT if task.policy == DOWNSCALE else task.policy
            # A policy stays in force in the other parts of a composition, so each starts from the model as built.
            if built is None or built[0] is not subject or policy not in (DEFAULT, wanted):
                built = None  # let go of the last model before the next is built
                built, policy = (subject, subject.build().to(settings.device)), DEFAULT
            if wanted != policy:
                visionpe.set_policy(built[1], wanted)
                policy = wanted
            row = _fill(task, built[1], source, settings)
            store.save(key, row)
        on_row(task, stored)
        yield {
            "label": subject.label,
            "model": subject.name,
            "seed": subject.seed,
            "policy": task.policy,
            "protocol": task.protocol,
            "height": task.size[0],
            "width": task.size[1],
            "factor": factor_of(task.size, subject.facts.trained),
            **row,
        }
