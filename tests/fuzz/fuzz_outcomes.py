"""What a fuzzed call may end in: a finite result, or a ValueError or TypeError that this package raises itself.

``pytest tests/fuzz`` draws the same few examples every time. ``VISIONPE_FUZZ=10000 pytest tests/fuzz`` draws about that
many, from the seed ``VISIONPE_FUZZ_SEED`` (0), goes on after a fault, prints how many calls ended in what, and fails at
the end if any did in something else.
"""

from __future__ import annotations

import linecache
import os
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck
from torch import Tensor

LONG = int(os.environ.get("VISIONPE_FUZZ", "0"))
SEED = int(os.environ.get("VISIONPE_FUZZ_SEED", "0"))
ROOT = Path(__file__).parents[2]
PACKAGE = tuple(str(ROOT / folder) + os.sep for folder in ("visionpe", "backbones", "detection"))

COUNTS: defaultdict[str, Counter[str]] = defaultdict(Counter)
FAULTS: dict[tuple[str, ...], list[str]] = {}


def fuzz(share: float, short: int) -> Callable[[Any], Any]:
    """Decorator: how often a test is run.

    Args:
        share: Of the examples of a long run.
        short: Examples otherwise.
    """
    settings = hypothesis.settings(
        max_examples=max(1, round(share * LONG)) if LONG else short,
        derandomize=not LONG,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[hypothesis.Phase.generate] if LONG else [hypothesis.Phase.generate, hypothesis.Phase.shrink],
    )

    def decorate(test: Any) -> Any:
        return settings(hypothesis.seed(SEED)(test) if LONG else test)

    return decorate


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor of floating-point numbers in a result."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from tensors(each)
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from tensors(each)
    elif hasattr(value, "features"):
        yield from tensors(value.features)


def is_ours(error: BaseException) -> bool:
    """Whether an error was raised by a ``raise`` of this package and says what it is about."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    line = linecache.getline(place.filename, place.lineno or 0).strip()
    return place.filename.startswith(PACKAGE) and line.startswith("raise") and len(str(error)) > 10


def judge(target: str, call: Callable[[], Any], example: Any) -> str:
    """Call, and count what it ended in.

    Args:
        target: What is fuzzed.
        call: Without arguments.
        example: What was drawn, for the report.

    Returns:
        ``finite``, ``ValueError`` or ``TypeError``.

    Raises:
        AssertionError: If it ended in anything else; not in a long run, which goes on.
    """
    try:
        result = call()
    except (ValueError, TypeError) as error:
        if is_ours(error):
            outcome = "TypeError" if isinstance(error, TypeError) else "ValueError"
            COUNTS[target][outcome] += 1
            return outcome
        fault = error
    except Exception as error:
        fault = error
    else:
        if all(t.isfinite().all() for t in tensors(result)):
            COUNTS[target]["finite"] += 1
            return "finite"
        fault = ArithmeticError("NaN or infinity in the result")
    COUNTS[target]["FAULT"] += 1
    trace = [f for f in traceback.extract_tb(fault.__traceback__) if f.filename.startswith(PACKAGE)]
    place = f"{Path(trace[-1].filename).relative_to(ROOT)}:{trace[-1].lineno}" if trace else ""
    text = f"{target}: {type(fault).__name__}: {str(fault)[:300]} at {place}\n    of {example!r}"
    if not LONG:
        raise AssertionError(text) from fault
    FAULTS.setdefault((target, type(fault).__name__, place), []).append(text)
    return "FAULT"


def report() -> list[str]:
    """How many calls of each target ended in what, and one example of each kind of fault."""
    outcomes = ("finite", "ValueError", "TypeError", "FAULT")
    total: Counter[str] = sum(COUNTS.values(), Counter())
    lines = [f"{'target':<24}{'calls':>8}" + "".join(f"{name:>12}" for name in outcomes)]
    for name, counts in [*sorted(COUNTS.items()), ("all", total)]:
        lines.append(f"{name:<24}{counts.total():>8}" + "".join(f"{counts[each]:>12}" for each in outcomes))
    for texts in FAULTS.values():
        lines.append(f"{len(texts)} x {min(texts, key=len)}")
    return lines
