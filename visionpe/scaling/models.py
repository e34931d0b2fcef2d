"""What is measured: timm models by name or from the directories of trained runs."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import timm
from timm.data import resolve_data_config, resolve_model_data_config
from torch import nn

import visionpe.backbones  # registers the models with timm
from visionpe.backbones.shared.mixed_sizes import TakesMixedSizes
from visionpe.data.digits import STATISTICS
from visionpe.policy.sizes import trained_size
from visionpe.scaling.building import build_model
from visionpe.scaling.options import CONTROLS
from visionpe.scaling.protocols import ViewSpec
from visionpe.scaling.sizes import Size
from visionpe.utils.errors import InputError, first_line


def _pair(value: Any) -> Size:
    height, width = (value, value) if isinstance(value, int) else tuple(value)[-2:]
    return int(height), int(width)


@dataclass(frozen=True)
class ModelInfo:
    """What a built model says of itself.

    Attributes:
        trained: Height and width at which it was built, pixels.
        patch: Height and width of a patch, pixels, or None.
        prefix: Class and register tokens.
        classes, channels: Outputs and input channels.
        policies: Names of the resolution policies that apply, the default first; empty where there are none.
        parameters: Their number.
        why_not_adapted: Why a model of timm's runs as timm built it; empty where it does not.
        mixes: Whether it takes images of several sizes at once.
    """

    trained: Size
    patch: Size | None
    prefix: int
    classes: int
    channels: int
    policies: tuple[str, ...]
    parameters: int
    why_not_adapted: str = ""
    mixes: bool = False

    def tokens(self, size: Size) -> int | None:
        """Tokens at a size in pixels, prefix tokens included, or None for a model without patches."""
        if self.patch is None:
            return None
        return (size[0] // self.patch[0]) * (size[1] // self.patch[1]) + self.prefix


@dataclass
class ModelEntry:
    """One model to measure.

    Args:
        name: As timm registers it.
        kwargs: For ``timm.create_model``.
        checkpoint: File with weights, or None.
        pretrained: Take the published weights.
        seed: Of the training for a run, else of the random weights.
        trained: Height and width of training, pixels, or None to ask the model.
        mean, std: Of the images, per channel in 0..255, or None for those of the data or the model.
        crop_pct: Share of a resized image that is shown, or None for what timm knows of the model.
        run: Directory of the run, or None.
        data: What it was trained on, where known.
        classes: Names of the folders that it was trained on, in the order of labels, where known.
    """

    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    checkpoint: Path | None = None
    pretrained: bool = False
    seed: int = 0
    trained: Size | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    crop_pct: float | None = None
    run: Path | None = None
    data: str | None = None
    classes: Sequence[str] | None = None
    label: str = ""
    why_not_adapted: str = field(default="", init=False)  # as the last build found

    @cached_property
    def sha256(self) -> str | None:
        """Of the checkpoint."""
        if self.checkpoint is None:
            return None
        digest = hashlib.sha256()
        with self.checkpoint.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()

    def build(self, *, weights: bool = True) -> nn.Module:
        """Build the model in evaluation mode, see :func:`~visionpe.scaling.building.build_model`.

        Args:
            weights: Load them; False for a look at the structure alone.

        Raises:
            InputError: If the name, the keywords or the checkpoint do not fit.
        """
        kwargs = dict(self.kwargs)
        checkpoint = self.checkpoint if weights else None
        if weights and checkpoint is None:
            kwargs["pretrained"] = self.pretrained
        try:
            model, self.why_not_adapted = build_model(self.name, checkpoint, kwargs, self.seed)
        except InputError:
            raise
        except Exception as error:
            raise self._refused(error) from error
        if self.trained is not None and hasattr(model, "trained_patch_size"):
            model.set_trained_size(self.trained, model.trained_patch_size)  # type: ignore[operator]
        return model.requires_grad_(False)  # FlopCounterMode fails on some models that could be trained

    def _refused(self, error: Exception) -> InputError:
        if self.checkpoint is not None:
            what = f"--checkpoint {self.checkpoint}: does not fit {self.name}"
        elif self.pretrained:
            what = f"--pretrained: no weights for {self.name}"
        else:
            what = f"--model {self.name}: cannot be built with {self.kwargs or 'no keywords'}"
        return InputError(f"{what} ({first_line(error)})")

    @cached_property
    def info(self) -> ModelInfo:
        """What the model says of itself; builds it once without weights."""
        model = self.build(weights=False)
        try:
            trained = self.trained or trained_size(model)
        except ValueError:  # of point clouds
            raise InputError(f"--model {self.name}: tells no size of images; allowed: models of images") from None
        embed = getattr(model, "patch_embed", None)
        patch = getattr(embed, "patch_size", None)
        config = resolve_model_data_config(model)
        convolution = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
        return ModelInfo(
            trained=trained,
            patch=None if patch is None or getattr(embed, "dynamic_img_pad", False) else _pair(patch),
            prefix=int(getattr(model, "num_prefix_tokens", 0)),
            classes=int(getattr(model, "num_classes", 0)),
            channels=convolution.in_channels if convolution else config["input_size"][0],
            policies=tuple(name for name in visionpe.policies(model) if name not in CONTROLS),
            parameters=sum(p.numel() for p in model.parameters()),
            why_not_adapted=self.why_not_adapted,
            mixes=isinstance(model, TakesMixedSizes),
        )

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What timm knows of how the images are prepared, in its terms."""
        published = timm.get_pretrained_cfg(self.name)
        return published.to_dict() if published else {}

    @property
    def origin(self) -> str:
        """Where the weights come from, in a few words."""
        if self.run is not None:
            return self.run.name
        return self.checkpoint.stem if self.checkpoint is not None else "random weights"

    def view(self, source: str, seed: int) -> ViewSpec:
        """How this model wants its images.

        Args:
            source: What ``--data`` is; its statistics serve where the entry has none of its own.
            seed: Decides the places on the canvas.
        """
        config = resolve_data_config({}, pretrained_cfg=self.preprocessing)
        mean, std = self.mean, self.std
        if mean is None or std is None:
            if source in STATISTICS:
                mean, std = ([value] for value in STATISTICS[source])
            else:
                mean, std = ([255 * value for value in config[key]] for key in ("mean", "std"))
        return ViewSpec(
            trained=self.info.trained,
            channels=self.info.channels,
            mean=mean,
            std=std,
            crop=config["crop_pct"] if self.crop_pct is None else self.crop_pct,
            interpolation=config["interpolation"],
            seed=seed,
        )

    @property
    def is_random(self) -> bool:
        """Whether no weights were named."""
        return self.checkpoint is None and not self.pretrained

    def key(self) -> dict[str, Any]:
        """Everything that decides the weights, ready for JSON."""
        weights = self.sha256 or ("pretrained" if self.pretrained else f"random, seed {self.seed}")
        return {"model": self.name, "kwargs": self.kwargs, "weights": weights}


def check_name(name: str) -> None:
    """Refuse a name that timm does not know, naming near ones.

    Raises:
        InputError: If it is unknown.
    """
    bare = name.split(".")[0]
    if not timm.is_model(bare):
        near = difflib.get_close_matches(bare, timm.list_models(), n=4, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "see timm.list_models()"
        raise InputError(f"--model {name}: timm knows no such model; {hint}")


def from_names(
    names: Sequence[str], checkpoints: Sequence[str], kwargs: dict[str, Any], *, pretrained: bool, seed: int
) -> list[ModelEntry]:
    """Models given by ``--model`` and ``--checkpoint``.

    Args:
        names: timm names.
        checkpoints: None at all, or one for each model in the same order (``none`` for one without).
        kwargs: For ``timm.create_model``, the same for all.
        pretrained: Take the published weights where no checkpoint is given.
        seed: Of random weights.

    Raises:
        InputError: If a name is unknown, a checkpoint is missing or their number does not match.
    """
    if checkpoints and len(checkpoints) != len(names):
        raise InputError(
            f"--checkpoint: {len(checkpoints)} given for {len(names)} --model; allowed: one each, in the same order "
            "(`none` for a model without), or none at all"
        )
    entries = []
    for name, checkpoint in zip(names, checkpoints or ["none"] * len(names)):
        check_name(name)
        path = None if checkpoint == "none" else Path(checkpoint)
        if path is not None and not path.is_file():
            raise InputError(f"--checkpoint {path}: no such file (for --model {name})")
        entries.append(ModelEntry(name, dict(kwargs), path, pretrained=pretrained and path is None, seed=seed))
    return entries


def from_runs(directories: Sequence[str]) -> list[ModelEntry]:
    """Models of every trained run below some directories: a ``model.json`` beside a ``model.safetensors``.

    Raises:
        InputError: If a directory holds no run, or a run cannot be read or names an unknown model.
    """
    entries = []
    for directory in directories:
        files = sorted(Path(directory).rglob("model.json"))
        if not files:
            raise InputError(f"--runs {directory}: no model.json in it or below it; train one with `visionpe train`")
        for file in files:
            try:
                content = json.loads(file.read_text())
                name, kwargs = content["model"], content["kwargs"]
                trained = _pair(content["img_size"])
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"--runs {directory}: cannot read {file} ({first_line(error)})") from error
            check_name(name)
            weights = file.with_name("model.safetensors")
            if not weights.is_file():
                raise InputError(f"--runs {directory}: {weights} is missing beside its model.json")
            extra = {key: content.get(key) for key in ("mean", "std", "crop_pct", "data", "classes")}
            entry = ModelEntry(name, kwargs, weights, seed=int(content.get("seed") or 0), trained=trained, **extra)
            entry.run = file.parent
            entries.append(entry)
    return entries
