"""Intervals: Wilson's for one accuracy, a paired bootstrap over seeds and images for means and differences."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest

DRAWS = 2000


def wilson(count: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval for a share.

    Args:
        count: Successes.
        n: Trials, above 0.
        level: Confidence.

    Returns:
        Lower and upper bound, percent.
    """
    interval = binomtest(count, n).proportion_ci(level, method="wilson")
    return 100 * interval.low, 100 * interval.high


def pack(correct: np.ndarray) -> str:
    """Outcomes ``(n,)`` (True where right) as text, one bit an image."""
    return f"{len(correct)}:{np.packbits(correct).tobytes().hex()}"


def unpack(text: str) -> np.ndarray:
    """The inverse of :func:`pack`."""
    n, _, digits = text.partition(":")
    return np.unpackbits(np.frombuffer(bytes.fromhex(digits), dtype=np.uint8), count=int(n)).astype(bool)


def pack_classes(classes: np.ndarray) -> str:
    """Predicted classes ``(n,)``, 0 to 65,535, as text: two bytes an image, compressed."""
    content = zlib.compress(np.asarray(classes).astype("<u2").tobytes(), 9)
    return base64.b85encode(content).decode()


def unpack_classes(text: str) -> np.ndarray:
    """The inverse of :func:`pack_classes`."""
    return np.frombuffer(zlib.decompress(base64.b85decode(text)), dtype="<u2").astype(np.int64)


def bootstrap(values: Sequence[np.ndarray], level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Paired bootstrap of a mean over seeds and images: both are redrawn, the same images for every seed.

    Args:
        values: One array ``(n,)`` a training seed, all about the same images: outcomes, or differences of outcomes.
        level: Confidence.
        seed: Of the draws.

    Returns:
        Lower and upper percentile of the mean, percent.
    """
    table = np.stack(values).astype(np.float64)  # (seeds, n)
    seeds, n = table.shape
    # Images on which all seeds did alike are interchangeable: drawing how many of each kind is the same, and fast.
    kinds, counts = np.unique(table, axis=1, return_counts=True)  # (seeds, kinds)
    generator = np.random.default_rng(seed)
    images = generator.multinomial(n, counts / n, size=DRAWS)  # (draws, kinds)
    runs = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=DRAWS)  # (draws, seeds)
    means = ((images @ kinds.T) * runs).sum(1) / (n * seeds)  # (draws,)
    low, high = np.percentile(means, [50 * (1 - level), 50 * (1 + level)])
    return 100 * float(low), 100 * float(high)
