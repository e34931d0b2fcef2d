"""Where the commands of a study run: processes here, or whatever else starts a command and says when it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from visionpe.utils.children import end_with_parent


class Work(Protocol):
    """A command that was started."""

    def poll(self) -> int | None:
        """Its exit code; None while it has not ended."""

    def stop(self) -> None:
        """Ask it to end; does not wait."""

    def join(self) -> None:
        """Wait for the end of what was stopped, and make it end where it does not."""


class Executor(Protocol):
    """Starts commands."""

    def start(self, command: Sequence[str], log: Path) -> Work:
        """Start a command, on one thread; what it prints is appended to ``log``."""


class LocalWork:
    """A process here, with those that it starts."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process

    def poll(self) -> int | None:
        """Its exit code; None while it has not ended."""
        return self.process.poll()

    def stop(self) -> None:
        """Ask it to end; data workers outlive a process that is terminated alone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)

    def join(self) -> None:
        """Wait for its end; kill it after ten seconds."""
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class LocalExecutor:
    """Processes on this machine, which end with the one that started them."""

    def start(self, command: Sequence[str], log: Path) -> Work:
        """Start a command, on one thread; what it prints is appended to ``log``."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # so that its data workers can be stopped with it
                preexec_fn=end_with_parent(),
            )
        return LocalWork(process)
