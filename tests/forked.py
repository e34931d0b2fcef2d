"""Work in a process of its own that need not import PyTorch anew."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path


class Forked:
    """What runs in a process forked from this one, which has imported everything; ``err`` is what it prints there.

    Args:
        work: What it does; returns its exit code.
        err: A file for its standard error.
    """

    def __init__(self, work: Callable[[], int], err: Path) -> None:
        self.err, self.code = err, 1
        self.pid = os.fork()
        if not self.pid:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # which a suite in the background ignores
            os.dup2(os.open(err, os.O_WRONLY | os.O_CREAT), 2)
            sys.stderr = os.fdopen(2, "w", buffering=1)
            try:
                self.code = work()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(self.code)

    def end(self, sent: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal; returns the exit code, or the signal's number below zero."""
        os.kill(self.pid, sent)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
