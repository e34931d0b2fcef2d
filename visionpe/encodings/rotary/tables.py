"""From coordinates and frequencies to the cosine and sine of every token."""

from __future__ import annotations

import torch
from torch import Tensor

from visionpe.encodings.rotary.pairs import Layout
from visionpe.grid import Grid
from visionpe.tracing import is_tracing


def rotation_table(places: list[Tensor], freqs: Tensor, grid: Grid, layout: Layout) -> Tensor:
    """Cosine and sine for every token, as :func:`~visionpe.encodings.rotary.pairs.rotate_pairs` takes them.

    Args:
        places: Coordinates along each axis, in the order of the grid: ``(n,)`` where it is dense, else ``([B,] N)``.
        freqs: What they are multiplied by, ``(axes, heads or 1, pairs)``, the last axis of the grid first.
        grid: Where the tokens stand.
        layout: Of the channel pairs.

    Returns:
        ``([B,] heads or 1, N, pairs, 2)`` for adjacent pairs, ``([B,] heads or 1, N, 2, pairs)`` for half-split ones.
    """
    if grid.dense and layout == "adjacent" and not (torch.is_grad_enabled() or is_tracing()):
        return _dense_rotation(places, freqs, grid)
    which = -1 if layout == "adjacent" else -2  # where cosine and sine stand
    if not grid.dense:
        angles = sum(p[..., None, :, None] * f[:, None] for p, f in zip(places, freqs.flip(0)))
        rotation = torch.stack(_unit(torch.as_tensor(angles)), dim=which)  # ([B,] heads, N, pairs, 2)
    else:
        # cos and sin of a sum of angles, from those of each axis: height + width values instead of their product
        cos, sin = _unit(places[0][:, None] * freqs[-1][:, None])  # (heads, n_0, pairs)
        for p, f in zip(places[1:], freqs[:-1].flip(0)):
            c, s = (t[:, None] for t in _unit(p[:, None] * f[:, None]))  # (heads, 1, n, pairs)
            cos, sin = cos[:, :, None], sin[:, :, None]
            cos, sin = (t.flatten(1, 2) for t in (cos * c - sin * s, sin * c + cos * s))
        rotation = torch.stack((cos, sin), dim=which)  # (heads, N, pairs, 2)
    if grid.prefix:  # cosine 1, sine 0: prefix tokens stay as they are, to the last bit
        still = rotation.new_zeros(*rotation.shape[:-3], grid.prefix, *rotation.shape[-2:])
        still.select(which, 0).fill_(1)
        rotation = torch.cat((still, rotation), dim=-3)
    return rotation


def _unit(angles: Tensor) -> tuple[Tensor, Tensor]:
    return angles.cos(), angles.sin()


def _dense_rotation(positions: list[Tensor], freqs: Tensor, grid: Grid) -> Tensor:
    """Rotations of adjacent pairs on a full grid, in one product of complex numbers an axis: ``(heads, N, pairs, 2)``.

    Without gradients alone: it is written in place, behind the ones of the prefix tokens.
    """
    angles = [p[:, None] * f[:, None] for p, f in zip(positions, freqs.flip(0))]  # (heads, n, pairs)
    units = [torch.complex(*_unit(angle)) for angle in angles]  # torch.polar takes one number at a time
    table = units[0].new_empty(units[0].shape[0], grid.num_tokens, units[0].shape[-1])
    table[:, : grid.prefix] = 1
    spatial = table[:, grid.prefix :].unflatten(1, grid.size)  # (heads, *size, pairs)
    views = []
    for axis, unit in enumerate(units):
        shape = [-1 if a == axis else 1 for a in range(grid.axes)]
        views.append(unit.unflatten(1, shape))
    product = views[0]
    for view in views[1:-1]:
        product = product * view
    if len(views) > 1:
        torch.mul(product, views[-1], out=spatial)
    else:
        spatial.copy_(product)
    return torch.view_as_real(table)
