"""Files of weights as they were published: read whole, before anything that tells whose code they are from is lost."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import timm.models
import torch
from safetensors.torch import load_file
from timm.models import clean_state_dict
from torch import Tensor

from visionpe.utils.checkpoints import is_trusted, plain_types_only, safe_pickle_load

StateDict = dict[str, Tensor]

# What training code wraps around weights, the weights that were averaged in training first.
AVERAGED = ("state_dict_ema", "model_ema")
WRAPPERS = (*AVERAGED, "state_dict", "model", "model_state", "module")
# Those of timm's ``load_state_dict``.
TIMM_WRAPPERS = (*AVERAGED, "state_dict", "model")
# Under which timm's feature extractors and OpenMMLab's classifiers hold a model.
HOLDER = "model."
# Weights of the same model that stand beside a wrapper: SeqPE's encoder.
BESIDE = ("pe_model",)


# Under these names authors' training code saves weights; timm's has state_dict and state_dict_ema, or none.
AUTHORS = ("model", "model_ema")


class Weights(dict[str, Any]):
    """A state dict that remembers its file.

    Attributes:
        wrapper: The name under which the file holds it; None where it is the file.
        config: The options of the training code, by name, where the file tells.
        by_authors: Whether it comes from code of the authors of a model.
        problems: Why the model would compute something else than that code.
    """

    wrapper: str | None = None
    config: Mapping[str, Any] = MappingProxyType({})
    by_authors: bool = False
    problems: tuple[str, ...] = ()

    def derived(self, items: Mapping[str, Any], *, problems: Iterable[str] = (), by_authors: bool = False) -> Weights:
        """Other names and tensors from the same file, with what was found besides."""
        out = Weights(items)
        out.wrapper, out.config, out.by_authors = self.wrapper, self.config, self.by_authors or by_authors
        out.problems = (*self.problems, *problems)
        return out


def unwrapped(checkpoint: Mapping[str, Any]) -> Weights:
    """The state dict inside what training code wraps around it, with flat names.

    What belongs to the same model and stands beside it gets the name of its place as a prefix (``pe_model.``), and so
    does each part of a file that is a dict of state dicts.
    """
    for key in WRAPPERS:
        if isinstance(checkpoint.get(key), Mapping):
            return _beside(unwrapped(checkpoint[key]), checkpoint, key)
    state = clean_state_dict(_flat(checkpoint))
    if state and all(key.startswith(HOLDER) for key in state):
        state = {key.removeprefix(HOLDER): value for key, value in state.items()}
    return checkpoint.derived(state) if isinstance(checkpoint, Weights) else Weights(state)


def _flat(state: Mapping[str, Any]) -> StateDict:
    out: StateDict = {}
    for key, value in state.items():
        out |= {f"{key}.{name}": inner for name, inner in value.items()} if isinstance(value, Mapping) else {key: value}
    return out


def _beside(out: Weights, checkpoint: Mapping[str, Any], wrapper: str) -> Weights:
    out |= _flat({key: clean_state_dict(checkpoint[key]) for key in BESIDE if isinstance(checkpoint.get(key), Mapping)})
    out.wrapper, out.by_authors = wrapper, wrapper in AUTHORS
    if isinstance(checkpoint.get("config"), Mapping):
        out.config = checkpoint["config"]
    return out


def read_content(path: str | Path, *, device: Any = "cpu", weights_only: bool = True) -> Any:
    """What a file holds, wrappers and all: ``.safetensors``, PyTorch's files, and pickles of arrays (``.pkl``).

    Args:
        path: The file.
        device: Of the tensors.
        weights_only: Refuse what could run code, unless the user said that files may.

    Raises:
        Exception: What the reader raises; :func:`~visionpe.utils.checkpoints.clear_errors` makes one error of it.
    """
    name = str(path)
    if name.endswith(".safetensors"):
        return load_file(name, device=str(device))
    if name.endswith(".pkl") and not zipfile.is_zipfile(name):
        content = safe_pickle_load(name)
        if isinstance(content, Mapping):
            return _as_tensors(content, device)
    with plain_types_only():
        return torch.load(name, map_location=device, weights_only=weights_only and not is_trusted())


def _as_tensors(content: Mapping[str, Any], device: Any) -> dict[str, Any]:
    """Arrays as tensors, and what is neither an array nor holds any left out."""
    out: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            out[key] = _as_tensors(value, device)
        elif hasattr(value, "shape"):
            out[key] = torch.as_tensor(value, device=device)
    return out


_timm_load_state_dict: Callable[..., dict[str, Any]] = timm.models.load_state_dict


def read_weights(
    checkpoint_path: str, use_ema: bool = True, device: Any = "cpu", weights_only: bool = True
) -> dict[str, Any]:
    """timm's ``load_state_dict``, which remembers the wrapper and what stands beside it, and reads ``.pkl`` too.

    Raises:
        Exception: As timm's function; of pickles, as :func:`~visionpe.utils.checkpoints.safe_pickle_load`.
    """
    try:
        content = read_content(checkpoint_path, device=device, weights_only=weights_only)
    except Exception:
        if str(checkpoint_path).endswith(".pkl"):
            raise
        return _timm_load_state_dict(checkpoint_path, use_ema, device=device, weights_only=weights_only)  # its errors
    names = [key for key in TIMM_WRAPPERS if use_ema or key not in AVERAGED]
    found = isinstance(content, Mapping)
    wrapper = next((key for key in names if found and isinstance(content.get(key), Mapping)), None)
    out = Weights(clean_state_dict(content if wrapper is None else content[wrapper]))
    return out if wrapper is None else _beside(out, content, wrapper)
