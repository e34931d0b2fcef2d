"""Peak memory of a piece of work, and telling a lack of memory from other errors."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

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


def allocated_peak(work: Callable[[], Any], device: torch.device) -> float | None:
    """Bytes that the tensors of a piece of work take at most at one time, above what was held before it.

    On a CPU counted by PyTorch's profiler, exactly and the same at every run, where the resident set depends on what
    the system gives back and when; what a library allocates past PyTorch is not in it.

    Args:
        work: Run once.
        device: Where it runs.

    Returns:
        The bytes, or None on other devices than CPUs and CUDA.
    """
    if device.type == "cuda":
        held = torch.cuda.memory_allocated(device)
        with peak_memory(device) as peak:
            work()
        return None if peak["bytes"] is None else peak["bytes"] - held
    if device.type != "cpu":
        return None
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    steps = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return float(max(accumulate(steps, initial=0)))
