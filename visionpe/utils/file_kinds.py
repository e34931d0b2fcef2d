"""What a file that should hold weights is, before anything reads it; and what it held."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visionpe.utils.errors import InputError, MissingFileError
from visionpe.utils.files import special

HEAD = 264  # bytes that tell what a file is
# torch.save before version 1.6: a pickle of this number comes first.
LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
OTHERS = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "packed by gzip; unpack it",
    b"BZh": "packed by bzip2; unpack it",
    b"\xfd7zXZ": "packed by xz; unpack it",
    b"%PDF": "a PDF",
    b"\x93NUMPY": "a numpy array",
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file itself with `git lfs pull`",
}
# What numpy and pickle themselves read, without torch.
NUMPY, PICKLE = (".npz", ".npy"), (".pkl",)


class NoWeightsError(InputError):
    """A file could be read, but holds no tensors by name."""


def broken(path: str | Path, why: str) -> InputError:
    """The error for a file that is not read, ready to be raised."""
    return InputError(f"checkpoint {str(path)!r} is cut off, or no file of weights ({why})")


def _looks_like(head: bytes) -> str:
    """What else a file is, by its first bytes."""
    for start, what in OTHERS.items():
        if head.startswith(start):
            return what
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:1] == b"<":
        return "a page of HTML or XML"
    try:
        shown = head.decode()
    except UnicodeDecodeError as error:
        shown = head.decode(errors="ignore") if error.start >= len(head) - 3 else ""
    if shown and all(letter.isprintable() or letter.isspace() for letter in shown):
        return f"text: {' '.join(shown.split())[:30]!r}"
    return "of no kind that is known"


def _check_zip(path: Path, *, numpy: bool) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        raise broken(path, "a zip archive without its end") from None
    if numpy:
        if not names or not all(name.endswith(".npy") for name in names):
            raise broken(path, "a zip archive, but none of numpy's")
    elif names and all(name.endswith(".npy") for name in names):
        raise broken(path, "arrays of numpy: such a file must be named .npz")
    elif not any(name.endswith("/data.pkl") for name in names):
        raise broken(path, "a zip archive, but none of PyTorch's")


def _check_safetensors(path: Path, head: bytes, size: int) -> None:
    """The header must be JSON, and the file as long as it says."""
    length = int.from_bytes(head[:8], "little")
    if head[8:9] != b"{":
        raise broken(path, "no file of safetensors" if size < 9 else f"no file of safetensors: {_looks_like(head)}")
    if 8 + length > size:
        raise broken(path, f"its header of {length} bytes ends behind the file")
    with path.open("rb") as file:
        file.seek(8)
        text = file.read(length)
    try:
        header = json.loads(text)
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        whole = 8 + length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise broken(path, "no file of safetensors: its header cannot be read") from None
    if whole != size:
        raise broken(path, f"{size} bytes, where its header tells of {whole}")


def check_file(path: str | Path) -> None:
    """Refuse what is no whole file of weights, by its name's ending and its first bytes; nothing in it is run.

    Args:
        path: ``.safetensors``, ``.npz``, ``.npy``, ``.pkl``, or any other name for a file of ``torch.save``.

    Raises:
        InputError: If it is a folder, empty, cut off, or something else; says what.
        MissingFileError: If there is no such file.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise InputError(f"checkpoint {str(path)!r} is a folder; allowed: a file of weights")
    if not path.exists():
        raise MissingFileError(f"checkpoint {str(path)!r} does not exist")
    if not path.is_file():
        raise InputError(f"checkpoint {str(path)!r} is {special(path)}; allowed: a file of weights")
    size, suffix = path.stat().st_size, path.suffix.lower()
    if not size:
        raise InputError(f"checkpoint {str(path)!r} is empty")
    with path.open("rb") as file:
        head = file.read(HEAD)
    if suffix == ".safetensors":
        _check_safetensors(path, head, size)
    elif suffix in NUMPY:
        if head.startswith(ZIP):
            _check_zip(path, numpy=True)
        elif not (suffix == ".npy" and head.startswith(b"\x93NUMPY")):
            raise broken(path, f"no file of numpy: {_looks_like(head)}")
    elif head.startswith(ZIP):
        _check_zip(path, numpy=False)
    elif head[:1] == b"\x80":
        if suffix not in PICKLE and LEGACY not in head:
            raise broken(path, "a pickle, but none of PyTorch's")
    elif head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        raise broken(path, "of safetensors: such a file must be named .safetensors")
    elif head[257:262] != b"ustar":
        raise broken(path, _looks_like(head))


def _has_tensors(content: Any, depth: int = 2) -> bool:
    if not isinstance(content, Mapping):
        return False
    values = list(content.values())
    return any(isinstance(value, Tensor) for value in values) or (
        depth > 0 and any(_has_tensors(value, depth - 1) for value in values)
    )


def check_content(content: Any, path: str | Path) -> None:
    """Refuse what a file held if there are no tensors by name in it.

    Args:
        content: As read: a state dict, or one within what training code keeps beside it.
        path: For the message.

    Raises:
        NoWeightsError: If there are none.
    """
    if not _has_tensors(content) or not all(isinstance(name, str) for name in content):
        raise NoWeightsError(f"checkpoint {str(path)!r} holds no dictionary of tensors by name")


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point():
        return True
    whole = tensor.detach() if tensor.element_size() > 1 else tensor.detach().float()  # no sums in 8 bits
    return bool(whole.sum(dtype=torch.float64).isfinite()) or bool(whole.isfinite().all())


def warn_of_nonfinite(state: Mapping[str, Any], path: str | Path) -> None:
    """Say where weights are NaN or infinite, as those of a training that went astray: they are loaded all the same.

    Args:
        state: Name -> tensor.
        path: Of the file, for the message.
    """
    bad = [name for name, value in state.items() if isinstance(value, Tensor) and not _is_finite(value)]
    if bad:
        kind = "NaN" if bool(state[bad[0]].float().isnan().any()) else "infinity"
        more = f" (and {len(bad) - 1} more tensors are not finite)" if len(bad) > 1 else ""
        warnings.warn(f"checkpoint {str(path)!r} holds {kind} in {bad[0]}{more}", stacklevel=3)
