"""Tables of offsets at a size that was not trained, when they are read and not stretched."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from visionpe.policy.functions.matrices import multiply, per_size
from visionpe.policy.functions.terms import as_term, refuse_export
from visionpe.policy.grammar import PolicyTerm
from visionpe.tracing import is_exporting

READ_POLICIES = ("geometric", "geometric_linear", "clamp", "rescale")


def resize_offset_table(
    table: Tensor, size: Sequence[int], policy: str | PolicyTerm, axes: Sequence[int] = (-2, -1)
) -> Tensor:
    """Read a trained table of offsets at all offsets of another grid.

    Args:
        table: ``2 n - 1`` entries along each of ``axes``, that of offset 0 in the middle.
        size: Tokens now along each of them, m.
        policy: ``geometric``: trained offsets are taken to lie at the distances of :func:`geometric_places`, and the
            table is read with a cubic spline; BEiT's resize (arXiv 2106.08254, its published code for fine-tuning).
            ``geometric_linear``: the same, read linearly, as timm does on larger grids.
            ``clamp``: entries stay at their offsets, and beyond the trained reach the one at the border counts.
            ``rescale(a)``: offsets are multiplied by ``(n / m) ** a`` and read linearly between entries, so that 0
            clamps and 1 spans what was trained.
        axes: Of the table.

    Returns:
        ``2 m - 1`` entries along each of ``axes``; the table itself at the trained size.

    Raises:
        ValueError: If ``policy`` is unknown, or exported for several sizes and not ``clamp``.
    """
    choice = as_term(policy, READ_POLICIES)
    if choice.name != "clamp":
        refuse_export(choice, ("clamp", "and those that resize the table"), size)
    matrices = {}
    for axis, m in zip(axes, size):
        n = (table.shape[axis] + 1) // 2
        if not (is_exporting() and not isinstance(m, int)) and n == m:
            continue
        if choice.name == "clamp":
            offsets = torch.arange(1 - m, m, device=table.device).clamp(1 - n, n - 1)
            table = table.index_select(axis, offsets + n - 1)
        elif choice.name == "geometric":
            matrices[axis] = geometric_matrix(n, m, like=table)
        elif choice.name == "geometric_linear":
            matrices[axis] = geometric_linear_matrix(n, m, like=table)
        else:
            matrices[axis] = rescaled_matrix(n, m, choice.number(), like=table)
    return multiply(table, matrices)


def geometric_ratio(steps: int, reach: float) -> float:
    """The ratio q for which ``1 + q + ... + q ** (steps - 1)`` is ``reach``, by bisection.

    Args:
        steps: At least 2.
        reach: Above 1.
    """
    low, high = 0.0, 1.0
    while sum(high**i for i in range(steps)) < reach:
        low, high = high, 2 * high
    while True:
        q = (low + high) / 2
        if q in (low, high):
            return q
        low, high = (low, q) if sum(q**i for i in range(steps)) > reach else (q, high)


def geometric_places(trained: int, size: int) -> list[float]:
    """Where the trained offsets 0, 1, 2, ... are put on an axis of ``size`` tokens: 0, 1, 1 + q, 1 + q + q^2, ...

    The longest reaches the longest new offset: near offsets stay where they are, far ones move apart (together, on a
    smaller grid). Two trained tokens have one offset, which is put at the longest new one.

    Args:
        trained: Tokens in training, at least 2.
        size: Tokens now, at least 3, or as many as in training.
    """
    steps, reach = trained - 1, size - 1
    if steps == 1:
        return [0.0, float(reach)]
    q = 1.0 if steps == reach else geometric_ratio(steps, reach)
    places = [0.0]
    for i in range(steps):
        places.append(places[-1] + q**i)
    return [*places[:-1], float(reach)]


def _placed(trained: int, size: int) -> tuple[Tensor, Tensor] | None:
    """Where the trained offsets are put, and the new ones, float64; None where these are of at most one token."""
    offsets = torch.arange(1 - size, size, dtype=torch.float64)
    if trained == 1 or size <= 2:
        return None
    ahead = torch.tensor(geometric_places(trained, size)[1:], dtype=torch.float64)
    return torch.cat((-ahead.flip(0), ahead.new_zeros(1), ahead)), offsets


def _clamped(trained: int, size: int) -> Tensor:
    """Each new offset as the trained one, or that at the border."""
    places = torch.arange(1 - size, size).clamp(1 - trained, trained - 1) + trained - 1
    return torch.eye(2 * trained - 1, dtype=torch.float64)[places]


@per_size
def geometric_matrix(trained: int, size: int) -> Tensor:
    """What each new offset takes of each trained one under ``geometric``: ``(2 size - 1, 2 trained - 1)``.

    With offsets of at most one token there is nothing to place: these keep their entries.
    """
    placed = _placed(trained, size)
    return _clamped(trained, size) if placed is None else spline_matrix(*placed)


@per_size
def geometric_linear_matrix(trained: int, size: int) -> Tensor:
    """The same under ``geometric_linear``."""
    placed = _placed(trained, size)
    if placed is None:
        return _clamped(trained, size)
    knots, places = placed
    low = (torch.searchsorted(knots, places, right=True) - 1).clamp(0, len(knots) - 2)
    share = ((places - knots[low]) / (knots[low + 1] - knots[low]))[:, None]
    one = torch.eye(len(knots), dtype=torch.float64)
    return one[low] * (1 - share) + one[low + 1] * share


@per_size
def rescaled_matrix(trained: int, size: int, power: float) -> Tensor:
    """The same under ``rescale``."""
    offsets = torch.arange(1 - size, size, dtype=torch.float64) * (trained / size) ** power
    entries = torch.arange(1 - trained, trained, dtype=torch.float64)
    return (1 - (offsets.clamp(1 - trained, trained - 1)[:, None] - entries).abs()).clamp(min=0)


def spline_matrix(knots: Tensor, places: Tensor) -> Tensor:
    """A cubic spline as a matrix: values at ``knots`` to values at ``places``, ``(places, knots)``.

    Its third derivative is continuous at the second knot and the last but one (not-a-knot ends), which is what
    interpolation routines take without further information. Three knots give a parabola, two a line.

    Args:
        knots: Ascending, float64.
        places: Float64, between the outer knots.
    """
    count = len(knots)
    if count < 4:
        basis = torch.ones(len(places), count, dtype=knots.dtype)
        for i in range(count):
            for j in range(count):
                if i != j:
                    basis[:, i] = basis[:, i] * (places - knots[j]) / (knots[i] - knots[j])
        return basis
    step = knots.diff()
    one = torch.eye(count, dtype=knots.dtype)
    slope = one.diff(dim=0) / step[:, None]  # of each interval, in the values
    both = (step[:-1] + step[1:])[:, None]
    # Second derivatives at the knots; each row is divided by what its intervals have together.
    left = torch.zeros_like(one)
    left[1:-1] = (step[:-1, None] * one[:-2] + 2 * both * one[1:-1] + step[1:, None] * one[2:]) / both
    left[0] = (step[1] * one[0] + step[0] * one[2]) / both[0] - one[1]
    left[-1] = (step[-2] * one[-1] + step[-1] * one[-3]) / both[-1] - one[-2]
    right = torch.zeros_like(one)
    right[1:-1] = 6 * slope.diff(dim=0) / both
    bend = torch.linalg.solve(left, right)
    low = (torch.searchsorted(knots, places, right=True) - 1).clamp(0, count - 2)
    width = step[low]
    b = ((places - knots[low]) / width)[:, None]
    a, square = 1 - b, (width**2 / 6)[:, None]
    return a * one[low] + b * one[low + 1] + square * ((a**3 - a) * bend[low] + (b**3 - b) * bend[low + 1])
