"""Peak memory of a piece of work, and telling a lack of memory from other errors."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_SIGNS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out: CUDA's, Python's, or the message of PyTorch's CPU allocator."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, (RuntimeError, OSError)) and any(sign in str(error).lower() for sign in _SIGNS)


def _resident(key: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no {key}")


def _give_back() -> None:
    """Return freed memory to the system, without which a second, smaller peak would not show."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def peak_memory(device: torch.device) -> Iterator[dict[str, float | None]]:
    """Measure the peak of the work inside.

    Args:
        device: Where the work runs.

    Yields:
        A dictionary whose ``bytes`` is set on leaving: on CUDA the most memory allocated, weights included; on a
        Linux CPU the rise of the resident set above what it was before; elsewhere None.
    """
    result: dict[str, float | None] = {"bytes": None}
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        yield result
        torch.cuda.synchronize(device)
        result["bytes"] = float(torch.cuda.max_memory_allocated(device))
        return
    before = None
    if device.type == "cpu":
        try:
            _give_back()
            _RESET.write_text("5")  # sets the high-water mark to the present size
            before = _resident("VmRSS")
        except OSError:
            before = None
    yield result
    if before is not None:
        result["bytes"] = float(max(_resident("VmHWM") - before, 0))
