"""Peak memory, each encoding in a process of its own, so that nothing is left over from another."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any

import torch

from visionpe.benchmarks.cases import Setting, build
from visionpe.benchmarks.options import PATCH
from visionpe.benchmarks.timing import FULL, OK, peak_of
from visionpe.utils.memory import is_out_of_memory

WARM_UP_PIXELS = 4 * PATCH
LOST = "its process ended"


def _peaks(spec: str, setting: Setting, threads: int) -> list[dict[str, Any]]:
    torch.set_num_threads(threads)
    device = torch.device(setting.device)
    for case in build(spec, replace(setting, pixels=min(WARM_UP_PIXELS, setting.pixels))):
        case.call()  # loads what a first call loads, and leaves no large table behind
    rows = []
    for case in build(spec, setting):
        row: dict[str, Any] = {"name": case.name, "of": case.of, "peer": case.peer, "status": OK}
        try:
            row["peak_mib"], row["seconds"] = peak_of(case, device)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            row |= {"status": FULL, "peak_mib": None, "seconds": None}
        rows.append(row)
    return rows


def measure_memory(specs: Sequence[str], setting: Setting, threads: int) -> Iterator[list[dict[str, Any]]]:
    """Run every encoding once.

    Args:
        specs: The first is what the others are compared with.
        setting: Under what conditions.
        threads: Of the CPU.

    Yields:
        The rows of each encoding: ``peak_mib``, the peak above what was held before the call; ``above_mib``, that minus
        the first encoding's; ``seconds``, of that first call at its size; and ``status``.
    """
    context = multiprocessing.get_context("spawn")
    base = None
    for number, spec in enumerate(specs):
        try:
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                rows = pool.submit(_peaks, spec, setting, threads).result()
        except BrokenProcessPool:  # the system ends what takes more memory than there is
            lost = {"name": spec, "of": spec, "peer": False, "status": LOST, "peak_mib": None, "seconds": None}
            rows = [lost]
        base = base if number else rows[0]["peak_mib"]
        for row in rows:
            known = base is not None and row["peak_mib"] is not None
            row["above_mib"] = row["peak_mib"] - base if known else None
        yield rows
