"""Reading files of weights without running what is in them."""

from __future__ import annotations

import importlib
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from visionpe.utils.errors import InputError, first_line

# Set to 1, pickles are read as Python reads them: whatever they call is called.
TRUST = "VISIONPE_TRUST_CHECKPOINTS"
ADVICE = f"if you trust it all the same, set {TRUST}=1 (or --trust-checkpoints)"
# Numbers and arrays of numpy, which training code keeps beside the weights.
NUMPY = ("_core.multiarray.scalar", "_core.multiarray._reconstruct", "core.multiarray.scalar")
NUMPY += ("core.multiarray._reconstruct", "ndarray", "dtype")


def _plain_types() -> list[Any]:
    """What may stand in a file besides tensors and Python's containers, for ``torch.serialization.safe_globals``."""
    place, scalar = np._core.multiarray.scalar, np._core.multiarray._reconstruct  # type: ignore[attr-defined]
    found = {"scalar": place, "_reconstruct": scalar, "ndarray": np.ndarray, "dtype": np.dtype}
    allowed: list[Any] = [(found[name.rsplit(".", 1)[-1]], f"numpy.{name}") for name in NUMPY]
    return allowed + [getattr(np.dtypes, name) for name in dir(np.dtypes) if name.endswith("DType")]


def safe_torch_load(file: str | Path | IO[bytes], map_location: Any = "cpu", *, allowed: Sequence[Any] = ()) -> Any:
    """``torch.load`` for files of others: tensors and plain values, and nothing that is called.

    Args:
        file: The file.
        map_location: Device of the tensors.
        allowed: Further types, as ``torch.serialization.safe_globals`` takes them.

    Returns:
        What the file holds.

    Raises:
        InputError: If it holds anything else, is empty, cut off, or no file of weights. The message says which, and how
            to load an old file that is trusted.
    """
    name = str(file) if isinstance(file, (str, Path)) else getattr(file, "name", "the file")
    trusted = os.environ.get(TRUST) == "1"
    try:
        with torch.serialization.safe_globals([*_plain_types(), *allowed]):
            return torch.load(file, map_location=map_location, weights_only=not trusted)
    except pickle.UnpicklingError as error:
        if "weights_only" in str(error) or "Unsupported" in str(error):
            raise InputError(f"checkpoint {name!r} was not loaded: {_culprit(file, error)}; {ADVICE}") from None
        raise InputError(f"checkpoint {name!r} is no file of weights ({first_line(error)})") from None
    except (EOFError, RuntimeError, KeyError, IndexError, ValueError, UnicodeDecodeError, AttributeError) as error:
        if isinstance(error, RuntimeError) and "CUDA" in str(error):
            raise
        what = "is empty" if isinstance(file, (str, Path)) and not Path(file).stat().st_size else "cannot be read"
        raise InputError(f"checkpoint {name!r} {what}: cut off, or no file of weights ({first_line(error)})") from None


def _culprit(file: Any, error: Exception) -> str:
    """What in a file would have run code."""
    import re

    found = re.search(r"(?:GLOBAL|Unsupported global:|Unsupported class|class) ([\w.]+)", str(error))
    return f"it holds {found[1]}, which can run code" if found else "it holds more than tensors and plain values"
