"""timm's readers of weights, with one clear error for a file that is none: ``timm.create_model(checkpoint_path=)``."""

from __future__ import annotations

import os
from functools import wraps
from typing import Any

import timm.models
from timm.models import _builder, _factory, _helpers, _hub

from visionpe.utils import timm_hub
from visionpe.utils.checkpoints import clear_errors
from visionpe.utils.file_kinds import NUMPY, check_content, check_file, warn_of_nonfinite
from visionpe.utils.weight_files import read_weights

_read, _load = _helpers.load_state_dict, _helpers.load_checkpoint


@wraps(_read)
def load_state_dict(checkpoint_path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """:func:`~visionpe.utils.weight_files.read_weights` behind checks of the file and of what it holds.

    Raises:
        visionpe.utils.errors.InputError: If it is no file of weights, or holds none.
    """
    check_file(checkpoint_path)
    try:
        with clear_errors(checkpoint_path):
            state = read_weights(checkpoint_path, *args, **kwargs)
    except (AttributeError, TypeError):  # it looks for names in what is no dictionary, or no text
        state = {}
    check_content(state, checkpoint_path)
    warn_of_nonfinite(state, checkpoint_path)
    return state


@wraps(_load)
def load_checkpoint(model: Any, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:
    """timm's own; files of numpy, which models read themselves, are checked first.

    Raises:
        visionpe.utils.errors.InputError: If it is no file of weights, or holds none.
    """
    if os.path.splitext(checkpoint_path)[-1].lower() in NUMPY:
        check_file(checkpoint_path)
        loaded = _load(model, checkpoint_path, *args, **kwargs)
        warn_of_nonfinite(model.state_dict(), checkpoint_path)
        return loaded
    return _load(model, checkpoint_path, *args, **kwargs)


def install() -> None:
    """Put these in the place of timm's wherever it calls them."""
    replaced = [("load_state_dict", _read, load_state_dict), ("load_checkpoint", _load, load_checkpoint)]
    for module in (timm.models, _builder, _factory, _helpers, _hub):
        for name, old, new in (*replaced, *timm_hub.REPLACED):
            if getattr(module, name, None) is old:
                setattr(module, name, new)
