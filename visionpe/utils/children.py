"""Processes that end with the one that started them."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def end_with_parent() -> Callable[[], None] | None:
    """A ``preexec_fn`` by which the system ends a child with its parent, even a killed one; None elsewhere."""
    return _end_with_parent if sys.platform.startswith("linux") else None
