"""Interleaved timing: every case once, then every case again, so that a drift of the machine meets all alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from visionpe.benchmarks.cases import Case
from visionpe.utils.memory import allocated_peak, is_out_of_memory, peak_memory

WARM_UPS = 2
OK, FULL = "ok", "out of memory"


def seconds_of(case: Case, device: torch.device) -> float:
    """Run a case once."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    case.call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def peak_of(case: Case, device: torch.device) -> tuple[float | None, float]:
    """Peak memory of one call in MiB above what was held before it (None where it cannot be read), and its seconds."""
    held = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    with peak_memory(device) as peak:
        taken = seconds_of(case, device)
    return None if peak["bytes"] is None else (peak["bytes"] - held) / 2**20, taken


def _percentiles(values: np.ndarray, key: str) -> dict[str, float | None]:
    found = np.percentile(values, (50, 25, 75))
    return {f"{key}{end}": float(x) if np.isfinite(x) else None for end, x in zip(("", "_low", "_high"), found)}


def measure(
    cases: Sequence[Case], device: torch.device, repeats: int, on_round: Callable[[], None] = lambda: None
) -> list[dict[str, Any]]:
    """Time all cases in turn.

    Args:
        cases: The first is the base of the ratios.
        device: Where they run.
        repeats: Rounds that count; two more come first and do not. In each of them every case runs twice, and the
            second run counts.
        on_round: Called after each round.

    Returns:
        For each case the median in ms with the quartiles, and the median and quartiles of its ratio to the base of the
        same round; ``vs_peer`` likewise to its peer; ``peak_mib`` is what the tensors of one call take at most, and
        ``peak_ratio`` that over the base's. A case that runs out of memory has ``status`` ``out of memory`` and None
        for numbers.
    """
    seconds = np.full((repeats, len(cases)), np.nan)
    peaks: list[float | None] = [None] * len(cases)
    full: set[int] = set()

    def tried(column: int, work: Callable[[Case, torch.device], Any]) -> Any:
        if column in full:
            return None
        try:
            return work(cases[column], device)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            full.add(column)
            return None

    for turn in range(-WARM_UPS, repeats):
        for column in range(len(cases))[:: 1 if turn % 2 else -1]:
            if turn >= 0:
                tried(column, seconds_of)  # the caches are those of another case: in use a model follows itself
            taken = tried(column, seconds_of)
            if turn >= 0 and taken is not None:
                seconds[turn, column] = taken
        on_round()
    gc.collect()
    for column in range(len(cases)):
        held = tried(column, lambda case, device: allocated_peak(case.call, device))
        peaks[column] = None if held is None else held / 2**20
    seconds[:, list(full)] = np.nan
    peer_of = {case.of: column for column, case in enumerate(cases) if case.peer}
    rows = []
    for column, case in enumerate(cases):
        own = seconds[:, column]
        peer = None if case.peer else peer_of.get(case.of)
        row: dict[str, Any] = {"name": case.name, "of": case.of, "peer": case.peer}
        row["status"] = FULL if column in full else OK
        row |= _percentiles(1e3 * own, "ms") | _percentiles(own / seconds[:, 0], "ratio")
        row |= {"vs_peer": None, "vs_peer_low": None, "vs_peer_high": None}
        if peer is not None:
            row |= _percentiles(own / seconds[:, peer], "vs_peer")
        mine, base = peaks[column], peaks[0]
        row |= {"difference": case.difference, "peak_mib": mine}
        # Below that the peak is noise.
        row["peak_ratio"] = mine / base if mine is not None and base is not None and base >= 1 else None
        rows.append(row)
    return rows
