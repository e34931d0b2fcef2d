"""Seconds and peak memory of attention among voxels, interleaved, a process of its own for each peak."""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from visionpe.benchmarks.memory import LOST
from visionpe.benchmarks.timing import FULL, OK
from visionpe.benchmarks.voxel_attention import FORMS, OURS, Problem
from visionpe.benchmarks.voxel_scenes import motorcycle, room
from visionpe.utils.memory import is_out_of_memory, peak_memory

WARM_UP_VOXELS = 500
Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """Where to attend.

    Args:
        voxels: Of a room; 0 is the real scan.
        heads, dim: Of the attention, ``dim`` channels a head.
        device: Where.
        threads: Of the CPU.
    """

    voxels: int
    heads: int
    dim: int
    device: str
    threads: int

    @property
    def scene(self) -> str:
        return "room" if self.voxels else "motorcycle"

    def problem(self) -> Problem:
        coords, signals = room(self.voxels) if self.voxels else motorcycle()
        return Problem.draw(coords, signals, self.heads, self.dim, self.device)


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _seconds(device: str, work: Callable[[], Any]) -> tuple[float, Any]:
    _wait(device)
    start = time.perf_counter()
    result = work()
    _wait(device)
    return time.perf_counter() - start, result


def _pass(problem: Problem, call: Callable[[], Tensor], device: str) -> tuple[float, float]:
    forward, out = _seconds(device, call)
    above = torch.ones_like(out)
    backward, _ = _seconds(device, lambda: torch.autograd.grad(out, problem.leaves, above))
    return forward, backward


def measure_seconds(
    task: Task, forms: Sequence[str], repeats: int, on_round: Callable[[], None] = lambda: None
) -> list[Row]:
    """Forward and backward pass of every formulation in turn; one round before does not count.

    Args:
        task: Where.
        forms: Of ``FORMS``, ours first.
        repeats: Rounds that count.
        on_round: Called after each round.

    Returns:
        For each formulation medians ``forward`` and ``backward`` in seconds (None where memory ran out, with its
        ``status``), the medians of their ratios to ours in the same round, and the largest ``difference`` of its output
        from ours, all of one scene, with its ``voxels`` and ``pairs``.
    """
    problem = task.problem()
    pairs = sum(len(own) ** 2 for own, _ in problem.windows())
    calls = {form: FORMS[form](problem) for form in forms}
    first, full, differences = calls[OURS]().detach(), set(), {}
    taken: dict[str, list[tuple[float, float]]] = {form: [] for form in forms}
    gc.collect()
    for turn in range(-1, repeats):
        for form, call in calls.items():
            if form in full:
                continue
            try:
                if turn < 0:
                    with torch.no_grad():
                        differences[form] = (call() - first).abs().max().item()
                seconds = _pass(problem, call, task.device)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                full.add(form)
                continue
            if turn >= 0:
                taken[form].append(seconds)
        on_round()
    rows = []
    for form in forms:
        row: Row = {"scene": task.scene, "voxels": len(problem.coords), "pairs": pairs, "form": form}
        row |= {"status": FULL if form in full else OK, "difference": differences.get(form)}
        for number, key in enumerate(("forward", "backward")):
            known = form not in full
            row[key] = _median([t[number] for t in taken[form]]) if known else None
            ratios = [theirs[number] / mine[number] for theirs, mine in zip(taken[form], taken[OURS])]
            row[f"{key}_ratio"] = _median(ratios) if known else None
        rows.append(row)
    return rows


def _median(values: Sequence[float]) -> float:
    return torch.tensor(values, dtype=torch.float64).quantile(0.5).item()


def _peak(task: Task, form: str) -> tuple[float | None, str]:
    torch.set_num_threads(task.threads)
    small = Task(WARM_UP_VOXELS, task.heads, task.dim, task.device, task.threads).problem()
    _pass(small, FORMS[form](small), task.device)  # loads what a first call loads
    problem = task.problem()
    call = FORMS[form](problem)
    device = torch.device(task.device)
    held = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    try:
        with peak_memory(device) as peak:
            _pass(problem, call, task.device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None, FULL
    return None if peak["bytes"] is None else (peak["bytes"] - held) / 2**20, OK


def peak_mib(task: Task, form: str) -> tuple[float | None, str]:
    """Peak memory in MiB of a forward and a backward pass above what was held before, and a status."""
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(_peak, task, form).result()
    except BrokenProcessPool:  # the system ends what takes more memory than there is
        return None, LOST
