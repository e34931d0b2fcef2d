"""timm's ``create_model`` with a file of weights that is read as plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
from torch import nn

from visionpe.utils import timm_reading
from visionpe.utils.checkpoints import clear_errors, is_trusted, plain_types_only
from visionpe.utils.errors import InputError, MisfitError, first_line
from visionpe.utils.file_kinds import NUMPY

timm_reading.install()


def load_checkpoint(model: nn.Module, checkpoint: str | Path) -> None:
    """Load weights that fit, as timm does.

    Raises:
        visionpe.utils.errors.InputError: If the file would run code, is empty, cut off, or no file of weights.
        RuntimeError: If the weights do not fit (of our models a ValueError too).
    """
    try:
        with clear_errors(checkpoint), plain_types_only():
            timm_reading.load_checkpoint(model, str(checkpoint), weights_only=not is_trusted())
    except (ValueError, NotImplementedError) as error:
        if isinstance(error, InputError | MisfitError) or not str(checkpoint).endswith(NUMPY):
            raise
        raise InputError(f"checkpoint {str(checkpoint)!r} cannot be read: {first_line(error)}") from None


def create_model(name: str, checkpoint: str | Path | None = None, **kwargs: Any) -> nn.Module:
    """Build a model, and load weights that fit.

    Args:
        name: In timm's registry.
        checkpoint: As ``checkpoint_path`` of timm's own function.
        kwargs: Its further keywords.

    Raises:
        visionpe.utils.errors.InputError: If the file would run code, is empty, cut off, or no file of weights.
        RuntimeError: If the weights do not fit.
    """
    model = timm.create_model(name, **kwargs)
    if checkpoint:
        load_checkpoint(model, checkpoint)
    return model
