"""Interleaved timing: every case once, then every case again, so that a drift of the machine meets all alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from bench.cases import Case
from scaling.memory import peak_memory


def _once(case: Case, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    case.call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def measure(
    cases: Sequence[Case], device: torch.device, repeats: int, on_round: Callable[[], None] = lambda: None
) -> list[dict[str, Any]]:
    """Time all cases in turn.

    Args:
        cases: The first is the base of the ratios.
        device: Where they run.
        repeats: Rounds that count; two more come first and do not.
        on_round: Called after each round.

    Returns:
        For each case the median in ms with the quartiles, and the median and quartiles of its ratio to the base of the
        same round; ``peak_mib`` is the memory of one call, ``vs_peer`` the ratio to timm's model in the same rounds.
    """
    seconds = np.empty((repeats, len(cases)))
    for turn in range(-2, repeats):
        for column, case in enumerate(cases):
            taken = _once(case, device)
            if turn >= 0:
                seconds[turn, column] = taken
        on_round()
    rows = []
    for column, case in enumerate(cases):
        gc.collect()
        with peak_memory(device) as peak:
            case.call()
        ratio = seconds[:, column] / seconds[:, 0]
        peers = [i for i, other in enumerate(cases) if other.of == case.of and other.name != case.name == case.of]
        versus = seconds[:, column] / seconds[:, peers[0]] if peers else None
        low, median, high = np.percentile(1e3 * seconds[:, column], (25, 50, 75))
        rows.append(
            {
                "name": case.name,
                "ms": median,
                "ms_low": low,
                "ms_high": high,
                "ratio": float(np.median(ratio)),
                "ratio_low": float(np.percentile(ratio, 25)),
                "ratio_high": float(np.percentile(ratio, 75)),
                "vs_peer": None if versus is None else float(np.median(versus)),
                "difference": case.difference,
                "peak_mib": None if peak["bytes"] is None else peak["bytes"] / 2**20,
            }
        )
    return rows
