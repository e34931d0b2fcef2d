"""mmengine reads checkpoints as plain values: it would read any pickle where the safe way fails."""

from __future__ import annotations

from typing import Any

import mmengine.runner.checkpoint as mmengine_checkpoint
import torch
from mmengine.logging import HistoryBuffer

from visionpe.detection.running import safe_handlers
from visionpe.utils.checkpoints import clear_errors, is_trusted, plain_types_only, safe_torch_load
from visionpe.utils.errors import InputError, first_line

# What a log buffer keeps by name; its pickles look these up.
STATISTICS = ("min", "max", "mean", "current")


def _statistic(owner: Any, name: str) -> Any:
    """``getattr`` as far as log buffers need it."""
    if owner is not HistoryBuffer or name not in STATISTICS:
        raise ValueError(f"{name!r} of {owner!r} is not looked up for a file")
    return getattr(HistoryBuffer, name)


# What mmengine's training writes beside tensors.
LOGGED = [HistoryBuffer, (_statistic, "builtins.getattr")]


def load_file(file: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
    """In place of mmengine's ``_safe_torch_load``.

    Raises:
        InputError: If the file holds more than weights and logs.
    """
    return safe_torch_load(file, map_location, allowed=LOGGED)


def load_url(url: str, *args: Any, **kwargs: Any) -> Any:
    """In place of mmengine's ``load_url``, which is PyTorch's.

    Raises:
        InputError: If the file holds more than weights and logs, or cannot be fetched.
    """
    try:
        with clear_errors(url), plain_types_only(LOGGED):
            return torch.hub.load_state_dict_from_url(url, *args, **{**kwargs, "weights_only": not is_trusted()})
    except OSError as error:  # no such address, no network
        raise InputError(f"checkpoint {url!r} cannot be fetched ({first_line(error)})") from None


def install() -> None:
    """Make every path of mmengine that reads weights take these, and its files of values plain ones."""
    safe_handlers.install()
    mmengine_checkpoint._safe_torch_load = load_file
    mmengine_checkpoint.load_url = load_url
