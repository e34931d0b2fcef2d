"""Checkpoints: mmengine reads ``.safetensors`` as it reads ``.pth``, and weights that do not fit are refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import CheckpointLoader
from safetensors.torch import load_file
from torch import Tensor, nn

from visionpe.detection.running import safe_loading
from visionpe.utils.checkpoints import clear_errors
from visionpe.utils.errors import InputError, first_few
from visionpe.utils.file_kinds import NoWeightsError, check_content, check_file, warn_of_nonfinite

safe_loading.install()


@CheckpointLoader.register_scheme(prefixes=r".*\.safetensors$", force=True)
def load_from_safetensors(filename: str, map_location: str | torch.device | None = None) -> dict[str, Tensor]:
    """Load a ``.safetensors`` file.

    Args:
        filename: Path of the file.
        map_location: Device of the tensors, ``"cpu"`` by default.

    Returns:
        Tensors by name.

    Raises:
        visionpe.utils.errors.MissingFileError: If there is no such file.
        visionpe.utils.errors.InputError: If it is cut off, or none of safetensors.
    """
    path = Path(filename).expanduser()
    check_file(path)
    with clear_errors(path):
        return load_file(path, device=str(map_location or "cpu"))


def read_checkpoint(filename: str) -> Any:
    """What a checkpoint holds, on the CPU.

    Args:
        filename: Path or URL, anything mmengine's ``CheckpointLoader`` takes.

    Raises:
        visionpe.utils.errors.MissingFileError: If there is no such file.
        NoWeightsError: If the file holds no dictionary of tensors.
        visionpe.utils.errors.InputError: If it is no file of weights.
    """
    if "://" not in filename:
        check_file(filename)
    content = CheckpointLoader.load_checkpoint(filename, map_location="cpu", logger="silent")
    if not (isinstance(content, Mapping) and content.get("state_dict", content) == {}):  # of a model without weights
        check_content(content, filename)
    return content


def classes_in(content: Any, filename: str) -> tuple[str, ...] | None:
    """Names of the classes that weights were trained on, in the order of labels; None where nobody says.

    Args:
        content: Of the checkpoint: mmengine keeps them beside the weights.
        filename: Of the checkpoint; beside an exported ``model.safetensors`` stands a ``model.json`` that tells them.
    """
    meta = content.get("meta") if isinstance(content.get("meta"), Mapping) else {}
    found = (meta.get("dataset_meta") or {}).get("classes")
    facts = Path(filename).expanduser().with_name("model.json")
    if found is None and Path(filename).name == "model.safetensors" and facts.is_file():
        try:
            found = json.loads(facts.read_text()).get("classes")
        except (ValueError, AttributeError):  # no file of ours
            found = None
    return tuple(map(str, found)) if isinstance(found, (list, tuple)) else None


def read_state(filename: str) -> dict[str, Tensor]:
    """Read the weights out of a checkpoint of mmengine (``.pth``), of timm, or a ``.safetensors`` file.

    Args:
        filename: Path or URL, anything mmengine's ``CheckpointLoader`` takes.

    Returns:
        Tensors by name, on the CPU, without a wrapper's ``module.`` prefix.

    Raises:
        NoWeightsError: If the file holds no dictionary of tensors.
        visionpe.utils.errors.InputError: If it is no file of weights.
    """
    return state_in(read_checkpoint(filename), filename)


def state_in(content: Any, filename: str) -> dict[str, Tensor]:
    """The weights in what :func:`read_checkpoint` gave, see :func:`read_state`."""
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    other = next((name for name, value in content.items() if not isinstance(value, Tensor)), None)
    if other is not None:
        raise NoWeightsError(f"checkpoint {filename!r} holds no dictionary of tensors alone: {other!r} is none")
    warn_of_nonfinite(content, filename)
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def load_weights(model: nn.Module, state: Mapping[str, Tensor], *, source: str, optional: tuple[str, ...] = ()) -> None:
    """Load ``state`` into ``model``, refusing what does not fit.

    Args:
        model: The module to fill.
        state: Tensors under the names of ``model.state_dict()``.
        source: Where the weights come from, for the message.
        optional: Prefixes of names that may be absent or differ in shape, such as a classifier's.

    Raises:
        InputError: If a tensor is missing, left over or of another shape; the first ones are named.
    """
    own = model.state_dict()
    wrong = {name: f"{name} is missing" for name in own if name not in state}
    wrong |= {name: f"{name} is left over" for name in state if name not in own}
    for name in own.keys() & state.keys():
        if own[name].shape != state[name].shape:
            wrong[name] = f"{name} is {tuple(state[name].shape)}, the model has {tuple(own[name].shape)}"
    wrong = {name: text for name, text in wrong.items() if not (optional and name.startswith(optional))}
    if wrong:
        raise InputError(f"{source} does not fit the model: {first_few(sorted(wrong.values()), separator='; ')}")
    fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    model.load_state_dict(fitting, strict=False)
