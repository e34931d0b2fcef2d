"""A frozen model with a classifier that was fitted on the features of training images at the trained size."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from visionpe.scaling.images import Source, batches
from visionpe.scaling.models import ModelEntry
from visionpe.scaling.open_images import open_training
from visionpe.scaling.options import Probe, StudyOptions
from visionpe.scaling.probes import NearestNeighbours, linear_probe, pooled_features, put_classifier
from visionpe.scaling.store import key_of
from visionpe.utils.errors import InputError, first_line
from visionpe.utils.files import replacing
from visionpe.utils.progress import INTERVAL

VERSION = 1  # of how features are taken and fitted


@dataclass
class ProbedEntry(ModelEntry):
    """An entry whose classifier is fitted here; what is fitted is kept in ``folder``.

    Args:
        probe: ``linear`` or ``knn``.
        sources: The images: ``train`` to fit, ``val`` for the strength of the penalty.
        outputs: Number of classes.
        folder: Where features are kept.
        device: Where features are computed.
        batch_size, workers: Of that.
        say: Called every half minute with how far it is.
    """

    probe: Probe = "linear"
    sources: Mapping[str, Source] | None = None
    outputs: int = 0
    folder: Path = Path()
    device: torch.device | str = "cpu"
    batch_size: int = 100
    workers: int = 0
    say: Callable[[str], None] = lambda text: None

    def build(self, *, weights: bool = True) -> nn.Module:
        """Build the model with its fitted classifier, in evaluation mode; see :meth:`ModelEntry.build`.

        Raises:
            InputError: If it has no pooled features, or the training images cannot be read.
        """
        model = super().build(weights=weights)
        try:
            if not weights:
                model.reset_classifier(self.outputs)  # type: ignore[operator]
                return model.eval().requires_grad_(False)
            train = self._features("train", model)
            if self.probe == "knn":
                classifier: nn.Module = NearestNeighbours(*train, self.outputs)
            else:
                classifier = linear_probe(*train, self._features("val", model), self.outputs)
            return put_classifier(model, classifier, self.outputs).eval().requires_grad_(False)
        except InputError:
            raise
        except (ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise InputError(f"--probe {self.probe}: cannot be put on {self.name} ({first_line(error)})") from error

    def key(self) -> dict[str, Any]:
        """Everything that decides the weights, ready for JSON."""
        assert self.sources is not None
        return super().key() | {"probe": [self.probe, VERSION, self.sources["train"].fingerprint, self.crop_pct]}

    @torch.inference_mode()
    def _features(self, split: str, model: nn.Module) -> tuple[Tensor, Tensor]:
        """Pooled features ``(n, dim)`` of a split at the trained size, and labels ``(n,)``."""
        assert self.sources is not None
        source = self.sources[split]
        spec = self.view(source.name, self.seed)
        what = {**super().key(), "images": source.fingerprint, "view": spec.key(), "version": VERSION}
        file = self.folder / f"{key_of(what)}.safetensors"
        if file.is_file():
            kept = load_file(file)
            return kept["features"], kept["labels"]
        model.to(self.device)
        found: list[Tensor] = []
        truth: list[Tensor] = []
        due = time.monotonic() + INTERVAL
        for images, labels, _ in batches(
            source,
            protocol="object",
            size=spec.trained,
            spec=spec,
            indices=range(len(source)),
            batch_size=self.batch_size,
            workers=self.workers,
        ):
            found.append(pooled_features(model, images.to(self.device)).cpu())
            truth.append(labels)
            if time.monotonic() > due:
                due += INTERVAL
                done = sum(map(len, truth)) / len(source)
                self.say(f"{self.label}: features of {split} {100 * done:.0f}%")
        features, answers = torch.cat(found), torch.cat(truth)
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(file) as beside:
            save_file({"features": features.contiguous(), "labels": answers}, beside)
        return features, answers


def probed(
    entries: Sequence[ModelEntry],
    options: StudyOptions,
    data: str,
    outputs: int,
    device: torch.device,
    say: Callable[[str], None] = lambda text: None,
) -> list[ModelEntry]:
    """Entries with fitted classifiers, where ``options.probe`` asks for them; else the entries themselves.

    Args:
        entries: The models.
        options: Of the study; features are kept below its ``out``.
        data: Name of the images.
        outputs: Number of their classes.
        device: Where features are computed.
        say: Called now and then with how far that is.

    Raises:
        InputError: If a folder of images has no ``train/``.
    """
    if options.probe is None:
        return list(entries)

    sources = open_training(data, options.class_map)
    crop = {} if options.crop_pct is None else {"crop_pct": options.crop_pct}
    return [
        ProbedEntry(
            **{each.name: getattr(entry, each.name) for each in fields(entry) if each.init} | crop,
            probe=options.probe,
            sources=sources,
            outputs=outputs,
            folder=options.out / "features",
            device=device,
            batch_size=options.batch_size,
            workers=options.num_workers,
            say=say,
        )
        for entry in entries
    ]
