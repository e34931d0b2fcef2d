"""After training: the weights as plain tensors under timm's names, and what it takes to build the model again."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mmengine
import mmpretrain
import timm
import torch
from mmengine.dist import master_only
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from safetensors.torch import save_file
from torch import Tensor, nn

from visionpe.detection.models.classifier import TimmImageClassifier
from visionpe.detection.running.crop_share import crop_share
from visionpe.detection.running.wrappers import unwrap_model
from visionpe.utils.files import replacing

# These say where the weights came from; the file written here replaces them.
SOURCES = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")


def unwrap(model: nn.Module) -> TimmImageClassifier:
    """Return the classifier inside wrappers such as DDP.

    Raises:
        TypeError: If it is not a ``TimmImageClassifier``.
    """
    inner = unwrap_model(model)
    if not isinstance(inner, TimmImageClassifier):
        raise TypeError(f"ExportHook needs a TimmImageClassifier; the model is a {type(inner).__name__}")
    return inner


def write_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Write a state dict as ``.safetensors``, which refuses tensors that share memory or have gaps."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    save_file(tensors, path, metadata={"format": "pt"})


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{name}[{i}]") for i, item in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{name}={value!r} cannot be written to model.json; give a number, a string, a list or a dict")


def model_kwargs(model: TimmImageClassifier) -> dict[str, Any]:
    """Return the keywords of ``timm.create_model`` that rebuild ``model``, as JSON can hold them.

    Raises:
        TypeError: If a keyword is something else than numbers, strings, lists and dicts; names it.
    """
    return {key: _plain(value, key) for key, value in model.model_kwargs.items() if key not in SOURCES}


def _config_name(filename: str) -> str:
    """The path below ``configs/``, the same wherever the run was started."""
    parts = Path(filename).resolve().parts
    return "/".join(parts[parts.index("configs") :]) if "configs" in parts else parts[-1]


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _data(runner: Runner) -> str:
    dataset = runner.train_dataloader.dataset
    while hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    return getattr(dataset, "source", type(dataset).__name__)


def _classes(runner: Runner) -> list[str] | None:
    """Names of the folders that the images stand in, in the order of labels; None where they stand in none."""
    dataset = runner.train_dataloader.dataset
    while hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    labels = getattr(dataset, "folder_to_idx", None)
    return sorted(labels, key=labels.get) if labels else None


def _image_size(model: TimmImageClassifier) -> int | list[int]:
    given = model.model_kwargs.get("img_size")
    size = given if given is not None else model.model.pretrained_cfg["input_size"][-2:]
    sides = [size, size] if isinstance(size, int) else [int(side) for side in size]
    return sides[0] if sides[0] == sides[1] else sides


def _statistic(model: TimmImageClassifier, name: str) -> list[float] | None:
    values = getattr(model.data_preprocessor, name, None)
    # The buffer is float32: 79.3 comes back as 79.30000305.
    return None if values is None else [float(f"{value:.6g}") for value in values.flatten().tolist()]


def _crop(runner: Runner) -> float | None:
    loader = runner.cfg.get("test_dataloader") or runner.cfg.get("val_dataloader") or {}
    return crop_share((loader.get("dataset") or {}).get("pipeline"))


def description(runner: Runner) -> dict[str, Any]:
    """Describe the trained model of ``runner``.

    Returns:
        ``model`` and ``kwargs`` for ``timm.create_model``; ``img_size`` in pixels; ``mean`` and ``std`` of the
        input in 0..255 (``None`` where it is not normalised); ``crop_pct``, the share of a resized image that tests
        show (``None`` where they resize nothing); ``classes``, names of the folders of images in the order of labels,
        or ``None``; ``data``, ``seed``, ``epochs``, ``config``, ``versions``.
    """
    model = unwrap(runner.model)
    config = runner.cfg.filename
    return {
        "model": model.model_name,
        "kwargs": model_kwargs(model),
        "img_size": _image_size(model),
        "data": _data(runner),
        "classes": _classes(runner),
        "seed": runner.seed,
        "mean": _statistic(model, "mean"),
        "std": _statistic(model, "std"),
        "crop_pct": _crop(runner),
        "epochs": runner.max_epochs,
        "config": _config_name(config) if config else None,
        "versions": {
            "visionpe": _version("visionpe"),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "timm": timm.__version__,
            "mmengine": mmengine.__version__,
            "mmpretrain": mmpretrain.__version__,
        },
    }


@HOOKS.register_module()
class ExportHook(Hook):
    """Write ``model.safetensors`` and ``model.json`` into the work directory after training.

    ``timm.create_model(d["model"], checkpoint_path="model.safetensors", **d["kwargs"])``, with ``d`` the content of
    ``model.json``, is the trained model; with mmengine's ``EMAHook``, its moving average, as in the checkpoints. Each
    file appears whole or not at all.
    """

    # After the hooks that save checkpoints or swap averaged weights.
    priority = "LOWEST"

    def before_train(self, runner: Runner) -> None:
        """Find out before hours of training that the model cannot be described.

        Raises:
            TypeError: If the model is no ``TimmImageClassifier`` or a keyword does not fit into JSON.
        """
        model_kwargs(unwrap(runner.model))

    @master_only
    def after_train(self, runner: Runner) -> None:
        """Write both files."""
        folder = Path(runner.work_dir)
        averages = [hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook)]
        state = unwrap(averages[0] if averages else runner.model).model.state_dict()
        weights, facts = folder / "model.safetensors", folder / "model.json"
        with replacing(facts) as beside, replacing(weights) as temporary:  # the facts appear last
            write_weights(state, temporary)
            beside.write_text(json.dumps(description(runner), indent=2) + "\n")
        what = "the moving average as " if averages else ""
        runner.logger.info(f"Exported {what}{weights} and {facts.name}")


@HOOKS.register_module()
class ExportBackbone(Hook):
    """Write ``backbone.safetensors`` into the work directory after training, under the names of timm's model."""

    priority = "LOWEST"  # after the hooks that save checkpoints

    @master_only
    def after_train(self, runner: Runner) -> None:
        """Write the file, whole or not at all."""
        file = Path(runner.work_dir) / "backbone.safetensors"
        with replacing(file) as beside:
            write_weights(unwrap_model(runner.model).backbone.model.state_dict(), beside)
        runner.logger.info(f"Exported {file}")
