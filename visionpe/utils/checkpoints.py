"""Reading files of weights without running what is in them."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors import SafetensorError

from visionpe.utils.errors import InputError, MisfitError, first_line
from visionpe.utils.file_kinds import broken, check_file

# Set to 1, pickles are read as Python reads them: whatever they call is called.
TRUST = "VISIONPE_TRUST_CHECKPOINTS"
ADVICE = f"if you trust it all the same, give --trust-checkpoints, or set {TRUST}=1"
# How torch says that a file is cut off or none of its own.
BROKEN = (
    *("PytorchStreamReader", "Invalid magic number", "unexpected EOF", "Unexpected EOF", "corrupt"),
    *("enforce fail", "TorchScript", "legacy .tar format"),
)
# How pickle says so.
CUT = ("truncated", "invalid load key", "stack underflow", "exhausted", "could not find MARK", "Ran out of input")
READING = (
    *(pickle.UnpicklingError, EOFError, KeyError, IndexError, UnicodeDecodeError, RuntimeError, SafetensorError),
    *(zipfile.BadZipFile, struct.error),
)


def _plain_types() -> list[Any]:
    """What training code keeps beside the weights: numpy's numbers and arrays, and its own options.

    The former by their names of versions 1 and 2. Configurations of yacs become dicts, the kind that torch fills.
    """
    core = np._core.multiarray  # type: ignore[attr-defined]
    own = {"scalar": core.scalar, "_reconstruct": core._reconstruct}
    allowed: list[Any] = [(fn, f"numpy.{at}.multiarray.{n}") for n, fn in own.items() for at in ("core", "_core")]
    dtypes = [getattr(np.dtypes, name) for name in dir(np.dtypes) if name.endswith("DType")]
    return [*allowed, np.ndarray, np.dtype, *dtypes, argparse.Namespace, (OrderedDict, "yacs.config.CfgNode")]


# What pickles of arrays and tensors call, by numpy's names of version 2.
_ARRAYS = (
    *(("collections", "OrderedDict"), ("numpy", "dtype"), ("numpy", "ndarray")),
    *((f"numpy._core.{at}", name) for at, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"))),
    ("numpy._core.numeric", "_frombuffer"),
    *(("torch._utils", "_rebuild_tensor_v2"), ("torch", "Size")),
)


def _bytes_of(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes in the protocols of Python 2: ``_codecs.encode``, of this encoding alone."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the file holds _codecs.encode to {encoding!r}; allowed: 'latin1'")
    return text.encode(encoding)


def _storage_of(content: bytes) -> Any:
    """What pickles of tensors hold of one: a file that torch writes, here read without running anything."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


class _ArrayUnpickler(pickle.Unpickler):
    """Reads arrays, tensors and plain containers, and refuses what could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _bytes_of
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _storage_of
        modern = re.sub(r"^numpy\.core\b", "numpy._core", module)
        if (modern, name) not in _ARRAYS:
            raise pickle.UnpicklingError(f"the file holds {module}.{name}; allowed: arrays, tensors, plain containers")
        return super().find_class(modern, name)


def safe_pickle_load(file: str | Path | IO[bytes], *, encoding: str = "latin1") -> Any:
    """A pickle of arrays, tensors and plain containers, such as detectron2 publishes (``.pkl``); of Python 2 too.

    Args:
        file: The file, or its path.
        encoding: Of Python 2's strings; ``latin1`` keeps the bytes of arrays.

    Raises:
        pickle.UnpicklingError: If it holds anything else, unless the user said that files may run code.
    """
    if isinstance(file, (str, Path)):
        with Path(file).open("rb") as opened:
            return safe_pickle_load(opened, encoding=encoding)
    reader = pickle.Unpickler if is_trusted() else _ArrayUnpickler
    return reader(file, encoding=encoding).load()


def is_trusted() -> bool:
    """Whether the user said that files may run code."""
    return os.environ.get(TRUST) == "1"


@contextmanager
def plain_types_only(allowed: Sequence[Any] = ()) -> Iterator[None]:
    """``torch.load(weights_only=True)`` inside may meet numpy's numbers too, and ``allowed``."""
    with torch.serialization.safe_globals([*_plain_types(), *allowed]):
        yield


@contextmanager
def clear_errors(name: str | Path) -> Iterator[None]:
    """What reading a file of weights raises, as one clear error.

    Raises:
        InputError: If the file would run code, is cut off, or is no file of weights.
    """
    try:
        yield
    except InputError:
        raise
    except READING as error:
        if isinstance(error, MisfitError):
            raise
        if isinstance(error, pickle.UnpicklingError) and any(sign in str(error) for sign in CUT):
            raise broken(name, first_line(error, 80)) from None
        if isinstance(error, pickle.UnpicklingError) or "weights_only=True blocked" in str(error):
            raise InputError(f"checkpoint {str(name)!r} was not loaded: {_culprit(str(error))}; {ADVICE}") from None
        if isinstance(error, RuntimeError) and not any(sign in str(error) for sign in BROKEN):
            raise
        raise broken(name, first_line(error, 80)) from None


def _culprit(text: str) -> str:
    """What in a file would have run code, from torch's message."""
    found = re.search(r"(?:GLOBAL|Unsupported globals:|instantiate class|the file holds) (\w+(?:\.\w+)+)", text)
    if found is None:
        return "it is no file of tensors and plain values alone"
    return f"it holds {found[1]}, which can run code"


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
    if isinstance(file, (str, Path)):
        check_file(file)
    name = file if isinstance(file, (str, Path)) else str(getattr(file, "name", "the file"))
    with clear_errors(name), plain_types_only(allowed):
        return torch.load(file, map_location=map_location, weights_only=not is_trusted())
