"""What the quickstarts are as programs: how many jobs they run, and the exit code they end with."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from scaling.errors import InputError


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def exit_code(work: Callable[[], object]) -> int:
    """Run ``work``: 0, 2 for input that cannot be used or a failed training, 130 when interrupted."""
    try:
        work()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from there", file=sys.stderr)
        return 130
    return 0
