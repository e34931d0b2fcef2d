"""The resolution study as a function, for models by name or in hand."""

from __future__ import annotations

import copy
import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from visionpe.scaling.models import ModelEntry, from_names
from visionpe.scaling.options import Control, Metric, Protocol, StudyOptions
from visionpe.scaling.study import measure_entries, write
from visionpe.scaling.summary import Row
from visionpe.utils.errors import InputError


@dataclass
class BuiltModelEntry(ModelEntry):
    """A model in hand; every build is a copy of it, so that it stays as it is.

    Args:
        model: Takes images ``(B, C, height, width)`` and gives logits ``(B, classes)``.
    """

    model: nn.Module | None = None

    def build(self, *, weights: bool = True) -> nn.Module:
        return copy.deepcopy(self.model).eval().requires_grad_(False)  # type: ignore[union-attr]

    @cached_property
    def sha256(self) -> str | None:
        """Of the parameters and buffers."""
        digest = hashlib.sha256()
        for name, tensor in self.model.state_dict().items():  # type: ignore[union-attr]
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().double().numpy().tobytes())
        return digest.hexdigest()

    @property
    def is_random(self) -> bool:
        return False

    @property
    def origin(self) -> str:
        return "in hand"

    @property
    def preprocessing(self) -> dict[str, Any]:
        return dict(getattr(self.model, "pretrained_cfg", None) or {})


def _entry(model: nn.Module, seed: int) -> BuiltModelEntry:
    config = getattr(model, "pretrained_cfg", None) or {}
    return BuiltModelEntry(config.get("architecture") or type(model).__name__, seed=seed, model=model)


def measure(
    models: str | nn.Module | Sequence[str | nn.Module],
    *,
    data: str | None = None,
    class_map: str | Path | None = None,
    resolutions: Sequence[str | int] = ("0.5x", "1x", "1.5x", "2x", "3x"),
    policies: Sequence[str] = ("default",),
    metric: Metric | None = None,
    controls: Sequence[Control] = ("downscale",),
    protocols: Sequence[Protocol] = ("object", "canvas"),
    pretrained: bool = False,
    checkpoint: str | Path | None = None,
    model_kwargs: dict[str, Any] | None = None,
    limit: int | None = None,
    batch_size: int = 100,
    device: str | None = None,
    amp: bool = False,
    num_workers: int = 0,
    diagnostics: int = 0,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool = True,
) -> list[Row]:
    """Measure accuracy, speed and memory of models against the input resolution.

    Args:
        models: timm names or models in hand, of which copies are measured: one, or several in one table.
        data: ``digits`` or ``mnist``, or a folder with one sub-folder of images a class; ``digits`` by default.
        class_map: Labels of the folders of ``data``: ``.txt`` with a name a line, or ``.json``; in the natural order of
            their names (2 before 10) by default.
        resolutions: Pixels (``224``), ``"512x384"`` (height x width) or factors of the trained size (``"1.5x"``).
        policies: ``"default"`` (as built), ``"all"`` that apply, ``"auto"`` (chosen without labels), or names.
        metric: By which ``versus_downscale`` compares: ``"top1"`` or ``"balanced"``; by default ``"balanced"`` for
            ``elpv`` and ``caltech101``, else ``"top1"``.
        controls: What is measured beside them: ``"downscale"``, ``"tiling"``.
        protocols: ``"object"`` (objects grow with the image) and ``"canvas"`` (they keep their size).
        pretrained: Published weights for models given by name.
        checkpoint: Weights of a model given by name; one model alone.
        model_kwargs: For ``timm.create_model``, of all models given by name.
        limit: A seeded random choice of so many images.
        batch_size: Images a batch.
        device: Where to run; the GPU where there is one by default.
        amp: Half precision by autocast.
        num_workers: Processes that prepare images.
        diagnostics: Images a row on which entropy and reach of attention are measured; 0 for none.
        seed: Of places on the canvas, the choice of images and random weights.
        out: Keep finished rows and write tables, plot and page into this directory; nothing is kept by default.
        progress: Show a progress bar and notes.

    Returns:
        One line a model, policy, protocol and resolution: ``label policy protocol height width factor n top1 top1_low
        top1_high top5 balanced images_per_s peak_bytes tokens flops versus_downscale status ...``; intervals are of
        95%.

    Raises:
        visionpe.utils.errors.InputError: If an argument cannot be used.
    """
    given = [models] if isinstance(models, (str, nn.Module)) else list(models)
    names = [model for model in given if isinstance(model, str)]
    if not given:
        raise InputError("models: nothing to measure; allowed: a name of timm's, a model, or several")
    if checkpoint is not None and len(names) != 1:
        raise InputError(f"--checkpoint: one is given for {len(names)} models by name; allowed: one model by name")
    entries: list[ModelEntry] = []
    for model in given:
        if isinstance(model, nn.Module):
            entries.append(_entry(model, seed))
        else:
            weights = [str(checkpoint)] if checkpoint is not None else []
            entries += from_names([model], weights, dict(model_kwargs or {}), pretrained=pretrained, seed=seed)
    with tempfile.TemporaryDirectory() as nowhere:
        options = StudyOptions(
            data=data,
            class_map=None if class_map is None else str(class_map),
            resolutions=[str(size) for size in resolutions],
            policy=list(policies),
            metric=metric,
            controls=list(controls),
            protocol=list(protocols),
            limit=limit,
            batch_size=batch_size,
            device=device,
            amp=amp,
            num_workers=num_workers,
            diagnostics=diagnostics,
            seed=seed,
            out=Path(out or nowhere),
        )
        results = measure_entries(entries, options, Console(stderr=True, quiet=not progress, markup=False))
        assert results is not None  # one process
        if out is not None:
            write(results, Path(out))
    return results.lines
