"""Commands as jobs of a cluster, by submitit."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionpe.quickstarts.executors import Work
from visionpe.utils.errors import InputError, first_line
from visionpe.utils.files import write_atomic

# Of a job, unless something else is asked for: a day, and a core as a process here has it.
DEFAULTS = {"timeout_min": 1440, "cpus_per_task": 1}


@dataclass(frozen=True)
class Run:
    """What a job does: a command that goes on where it stopped, submitted again when its node is taken away.

    Args:
        command: The command line.
        log: Receives what it prints.
        code: File that receives its exit code.
    """

    command: tuple[str, ...]
    log: Path
    code: Path

    def __call__(self) -> None:
        """Run it."""
        threads = os.environ.get("SLURM_CPUS_PER_TASK", "1")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as file:
            code = subprocess.run(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": threads},
                check=False,
            ).returncode
        write_atomic(self.code, f"{code}\n")

    def checkpoint(self) -> Any:
        """What is submitted in place of a job that was preempted or ran out of time."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class ClusterWork:
    """A job.

    Args:
        job: Of submitit. Its result is never read, since that is a pickle: the exit code stands in a file of text.
        code: That file.
    """

    def __init__(self, job: Any, code: Path) -> None:
        self.job, self.code = job, code

    def poll(self) -> int | None:
        """The exit code of its command, 1 where the job ended without; None while it has not ended."""
        try:
            return int(self.code.read_text())
        except (OSError, ValueError):
            return 1 if self.job.done() else None

    def stop(self) -> None:
        """Cancel it."""
        self.job.cancel(check=False)

    def join(self, seconds: float = 10) -> None:
        """Wait a little for its end, which is the scheduler's business."""
        end = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < end:
            time.sleep(0.2)


class ClusterExecutor:
    """Every command is a job.

    Args:
        folder: Of submitit's own files, on a disk that all nodes see.
        options: Of jobs, as submitit's ``update_parameters`` takes them: ``timeout_min``, ``cpus_per_task``,
            ``gpus_per_node``, ``slurm_partition``, ``slurm_account``, ...
        cluster: ``slurm``; ``local`` are processes here, for tries.

    Raises:
        InputError: If submitit is not installed, there is no such cluster, or it knows no such option.
    """

    def __init__(self, folder: Path, options: Mapping[str, Any] | None = None, cluster: str = "slurm") -> None:
        try:
            from submitit import AutoExecutor
        except ImportError as error:
            raise InputError(f"--executor {cluster}: {first_line(error)}; install the `cluster` extra") from None
        self.folder = folder.resolve()
        try:
            self.executor = AutoExecutor(self.folder, cluster=cluster)
            self.executor.update_parameters(**{**DEFAULTS, **(options or {})})
        except Exception as error:
            raise InputError(f"--executor {cluster}: {first_line(error)}") from None

    def start(self, command: Sequence[str], log: Path) -> Work:
        """Submit a command; what it prints is appended to ``log``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        code = self.folder / f"{log.parent.name}_{time.time_ns()}.code"
        try:
            job = self.executor.submit(Run(tuple(command), log.resolve(), code))
        except Exception as error:
            raise InputError(f"--executor: the job was not taken ({first_line(error)})") from None
        return ClusterWork(job, code)
