"""The walk over all rows, skipping what is already measured."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

import visionpe
from visionpe.scaling.auto import PolicyChooser, columns
from visionpe.scaling.images import Source, batches
from visionpe.scaling.models import ModelEntry
from visionpe.scaling.options import AUTO, DEFAULT, DOWNSCALE, NATIVE, OBJECT, TILING, Protocol
from visionpe.scaling.plan import Task
from visionpe.scaling.row import NotFiniteError, measure
from visionpe.scaling.sizes import factor_of, limits_at
from visionpe.scaling.store import VERSIONS, Store, key_of
from visionpe.utils.errors import InputError, first_line
from visionpe.utils.memory import is_out_of_memory

OK, OUT_OF_MEMORY, FAILED = "ok", "out of memory", "failed"
# What a model says of a size or a policy that it cannot take: an answer, and no failure of the measurement.
REFUSALS = (ValueError, TypeError, AssertionError)


@dataclass(frozen=True)
class Settings:
    """What holds for every row.

    Args:
        device: Where to run.
        batch_size: Images a batch.
        amp: Half precision by autocast.
        limit: Images to evaluate, or None for all.
        limit_from: From which factor of the trained size on only how many of them.
        seed: Of the places on the canvas and the choice of images.
        workers: Processes that prepare images.
        skip_corrupt: Leave unreadable images out.
        fresh: Measure again what is already stored.
        crop: Share of the resized image that the central crop keeps, or None for that of the model; folders only.
        diagnostics: Images on which to look at attention.
    """

    device: torch.device
    batch_size: int = 100
    amp: bool = False
    limit: int | None = None
    limit_from: tuple[tuple[float, int], ...] = ()
    seed: int = 0
    workers: int = 0
    skip_corrupt: bool = False
    fresh: bool = False
    crop: float | None = None
    diagnostics: int = 0

    def images(self, task: Task) -> int | None:
        """How many images a row is about, None for all."""
        factor = factor_of(task.size, task.entry.info.trained)
        own = [] if self.limit is None else [self.limit]
        return min([*own, *limits_at(factor, self.limit_from)], default=None)


def _view(task: Task, source: Source, settings: Settings) -> Any:
    spec = task.entry.view(source.name, settings.seed)
    spec.crop = spec.crop if settings.crop is None else settings.crop
    if task.protocol == NATIVE:
        spec.patch = task.entry.info.patch
    return spec


def _protocol(task: Task) -> Protocol:
    """How images are shown: to a control as every model is shown them at the trained size."""
    return OBJECT if task.protocol == NATIVE and task.is_control else task.protocol


def _key(task: Task, source: Source, settings: Settings, device_name: str) -> str:
    entry = task.entry
    what = {
        **entry.key(),
        "policy": task.policy,
        "protocol": task.protocol,
        "size": task.size,
        "images": [source.fingerprint, settings.images(task), settings.seed],
        "view": _view(task, source, settings).key(),
        "how": [settings.batch_size, settings.amp, device_name, settings.skip_corrupt, torch.get_num_threads()],
        "diagnostics": settings.diagnostics,
        "versions": VERSIONS,
    }
    return key_of(what)


def _fill(task: Task, model: nn.Module, source: Source, settings: Settings) -> dict[str, Any]:
    """Measure one row; a lack of memory or a refusal of the policy or the size becomes its status."""
    info = task.entry.info
    try:
        if info.policies:  # other models take none
            visionpe.set_policy(model, DEFAULT)  # a policy leaves parts alone that do not know it
            if not task.is_control and task.policy != DEFAULT:
                visionpe.set_policy(model, task.policy)
        shown = batches(
            source,
            protocol=_protocol(task),
            size=task.size,
            spec=_view(task, source, settings),
            indices=source.subset(settings.images(task), settings.seed),
            batch_size=settings.batch_size,
            workers=settings.workers,
            skip_corrupt=settings.skip_corrupt,
        )
        result = measure(
            model,
            shown,
            device=settings.device,
            amp=settings.amp,
            downscale_to=info.trained if task.policy == DOWNSCALE else None,
            tile_to=info.trained if task.policy == TILING else None,
            diagnostics=0 if task.protocol == NATIVE else settings.diagnostics,
        )
        row = {"status": OK, "reason": "", **result}
    except InputError:
        raise
    except Exception as error:
        row = _failure(error)
    if row["status"] == OUT_OF_MEMORY:  # outside the handler, whose traceback would keep the tensors alive
        gc.collect()
        if settings.device.type == "cuda":
            torch.cuda.empty_cache()
    return row | {"tokens": task.tokens}


class _Models:
    """The model at hand; the next is built when the last is gone."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.entry: ModelEntry | None = None
        self.model: Any = None

    def get(self, entry: ModelEntry) -> nn.Module:
        if self.entry is not entry:
            self.model = None
            self.entry, self.model = entry, entry.build().to(self.device)
        return self.model


def _failure(error: Exception) -> dict[str, Any]:
    status = OUT_OF_MEMORY if is_out_of_memory(error) else FAILED
    refused = isinstance(error, REFUSALS) and not isinstance(error, NotFiniteError)
    return {"status": status, "reason": first_line(error), "refused": refused}


def _chosen(
    task: Task, source: Source, settings: Settings, models: _Models, chooser: PolicyChooser | None
) -> tuple[Task | None, dict[str, Any]]:
    """A row to measure, and what it says of its choice; no row, but the reason, where choosing failed."""
    if task.policy != AUTO or chooser is None:
        return task, {}
    try:
        choice = chooser(task, models.get(task.entry), _view(task, source, settings))
    except InputError:
        raise
    except Exception as error:
        return None, {**_failure(error), "tokens": task.tokens}
    return replace(task, policy=choice.policy), columns(choice)


def sweep(
    tasks: Sequence[Task],
    source: Source,
    settings: Settings,
    store: Store,
    device_name: str,
    on_row: Callable[[Task, bool], None] = lambda task, stored: None,
    chooser: PolicyChooser | None = None,
) -> Iterator[dict[str, Any]]:
    """Fill every row, taking from the store what is already there.

    Args:
        tasks: From :func:`visionpe.scaling.plan.plan`; those of one model stand together.
        source: The images.
        settings: What holds for every row.
        store: Finished rows. Rows that failed or ran out of memory are tried again.
        device_name: Part of what decides a row, as speed and memory depend on it.
        on_row: Called after each row, with whether it was already stored.
        chooser: Of the policies of rows whose policy is ``auto``.

    Yields:
        Rows in the order of ``tasks``.

    Raises:
        InputError: If a checkpoint does not fit its model or an image cannot be read.
    """
    models = _Models(settings.device)
    for task in tasks:
        entry, stored = task.entry, False
        measured, choice = _chosen(task, source, settings, models, chooser)
        if measured is None:
            row = choice
        else:
            key = _key(measured, source, settings, device_name)
            kept = None if settings.fresh else store.load(key, "status")
            stored = kept is not None and kept["status"] == OK and "labels" in kept
            if kept is None or not stored:
                kept = _fill(measured, models.get(entry), source, settings)
                store.save(key, kept)
            row = {**kept, **choice}
        on_row(task, stored)
        yield {
            "label": entry.label,
            "model": entry.name,
            "seed": entry.seed,
            "policy": task.policy,
            "protocol": task.protocol,
            "height": task.size[0],
            "width": task.size[1],
            "factor": factor_of(task.size, entry.info.trained),
            "native": task.is_native,
            "drawn": [len(source), settings.images(task), settings.seed],
            **row,
        }
