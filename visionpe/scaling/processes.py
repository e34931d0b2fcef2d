"""Several processes that share the rows: one a GPU, started by the engine's launchers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed

from visionpe.scaling.options import Launcher
from visionpe.utils.errors import InputError

# The first to finish waits for the last.
PATIENCE = timedelta(days=14)


@dataclass(frozen=True)
class Processes:
    """The processes of a run.

    Args:
        rank: Of this one.
        size: How many there are.
        local: Index of the GPU of this one on its machine.
        joined: Whether there are processes to leave.
    """

    rank: int = 0
    size: int = 1
    local: int | None = None
    joined: bool = False

    def device(self, name: str) -> str:
        """The device of this process, where ``name`` is that of the command line."""
        kind = name.split(":")[0]
        return f"{kind}:{self.local}" if self.local is not None and kind == "cuda" else name

    def share(self, work: Sequence[int]) -> list[int]:
        """Indices of the pieces of work that are this process's, in order; each process has a like amount.

        Args:
            work: How much each piece is.
        """
        by_size = sorted(range(len(work)), key=lambda i: -work[i])
        return sorted(by_size[self.rank :: self.size])

    def gather(self, own: dict[int, Any]) -> dict[int, Any]:
        """What all processes have, in the first process; in the others what they have themselves. Waits for all."""
        if self.size == 1:
            return own
        parts: list[Any] | None = [None] * self.size if self.rank == 0 else None
        torch.distributed.gather_object(own, parts)
        torch.distributed.barrier()
        return {key: value for part in parts for key, value in part.items()} if parts else own


def join_processes(launcher: Launcher, device: str) -> Processes:
    """Meet the other processes.

    Args:
        launcher: Who started this one; ``none`` for a process alone.
        device: ``--device``; with ``cuda`` each process takes the GPU of its local rank.

    Raises:
        InputError: If the launcher did not start this process, or OpenMMLab's engine is missing.
    """
    if launcher == "none":
        return Processes()
    if launcher == "pytorch" and "RANK" not in os.environ:
        raise InputError(
            "--launcher pytorch: not started by torchrun; use torchrun --nproc_per_node=N -m visionpe scaling "
            "... --launcher pytorch"
        )
    if not device.startswith("cuda"):
        if launcher != "pytorch":
            raise InputError(f"--launcher {launcher}: needs GPUs, got --device {device}; allowed there: pytorch")
        # The engine's own initialisation would ask for a GPU.
        torch.distributed.init_process_group("gloo", timeout=PATIENCE)
        return Processes(torch.distributed.get_rank(), torch.distributed.get_world_size(), joined=True)
    try:
        from mmengine.dist import init_dist
    except ImportError:
        raise InputError(f"--launcher {launcher}: needs OpenMMLab's engine; install the `detection` extra") from None
    # Rows alone travel between the processes, and gloo carries these without taking memory on the GPUs.
    init_dist(launcher, backend="gloo", timeout=PATIENCE.total_seconds())
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    return Processes(rank, size, torch.cuda.current_device(), joined=True)


def leave_processes(processes: Processes) -> None:
    """The inverse of :func:`join_processes`."""
    if processes.joined:
        torch.distributed.destroy_process_group()
