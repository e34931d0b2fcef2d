"""Tables of absolute positions, and maps, at a size that was not trained."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from visionpe.policy.functions.positions import is_trained_size
from visionpe.policy.functions.spectrum import resize_fourier
from visionpe.policy.functions.terms import as_term, refuse_export
from visionpe.policy.functions.windows import tiled, window_part
from visionpe.policy.grammar import PolicyTerm
from visionpe.tracing import is_exporting

# name: (mode of torch.nn.functional.interpolate, antialias)
TABLE_POLICIES = {
    "bicubic_antialias": ("bicubic", True),
    "bicubic": ("bicubic", False),
    "bilinear_antialias": ("bilinear", True),
    "bilinear": ("bilinear", False),
    "nearest": ("nearest-exact", False),
}
# Of tables of absolute positions alone.
ABSOLUTE_POLICIES = (*TABLE_POLICIES, "fourier", "window_aware")


def resize_map(x: Tensor, size: Sequence[int], policy: str | PolicyTerm = "bicubic_antialias") -> Tensor:
    """Resize feature maps ``(B, C, H, W)`` or volumes ``(B, C, T, H, W)`` to ``size``, in at least float32.

    Args:
        x: The maps. Volumes are resized along one axis after the other, which for all these policies is the same.
        size: New tokens along each axis.
        policy: One of ``TABLE_POLICIES``. Corners are not aligned; ``bicubic`` is the resize of DeiT and RoPE-ViT,
            ``bicubic_antialias`` that of timm (the two differ when enlarging too: their cubic kernels do).

    Raises:
        ValueError: If ``policy`` is unknown.
    """
    mode, antialias = TABLE_POLICIES[as_term(policy, tuple(TABLE_POLICIES)).name]
    wide = torch.promote_types(x.dtype, torch.float32)  # bfloat16 has 8 bits for a weighted sum of 16 entries
    if x.ndim == 4:
        return _interpolate(x.to(wide), tuple(size), mode, antialias).to(x.dtype)
    y = x.to(wide)
    for axis, n in enumerate(size, start=2):
        lines = y.movedim(axis, 2).flatten(3)  # (B, C, n, others)
        lines = _interpolate(lines, (n, lines.shape[3]), mode, antialias)
        y = lines.unflatten(3, [m for a, m in enumerate(y.shape[2:], start=2) if a != axis]).movedim(2, axis)
    return y.to(x.dtype)


def _interpolate(x: Tensor, size: Sequence[int], mode: str, antialias: bool) -> Tensor:
    """``F.interpolate``, whose antialiasing on a CPU gives wrong numbers where the result is one entry wide."""
    if is_exporting() or not antialias or size[1] != 1:
        return F.interpolate(x, size=tuple(size), mode=mode, antialias=antialias)

    def lengthen(y: Tensor, n: int) -> Tensor:
        """Along the height alone, at least two entries wide."""
        double = y if y.shape[3] > 1 else y.expand(-1, -1, -1, 2)
        return F.interpolate(double, size=(n, double.shape[3]), mode=mode, antialias=True)[..., : y.shape[3]]

    return lengthen(lengthen(x, size[0]).transpose(2, 3), 1).transpose(2, 3)


def resize_table(
    table: Tensor,
    size: Sequence[int],
    policy: str | PolicyTerm = "bicubic_antialias",
    window: Sequence[int] | None = None,
) -> Tensor:
    """Resize a table of absolute positions.

    Args:
        table: ``(H, W, dim)`` or ``(T, H, W, dim)``.
        size: New tokens along each axis.
        policy: One of ``TABLE_POLICIES``; ``fourier``, see :func:`~visionpe.policy.functions.resize_fourier`;
            ``window_aware``, see :func:`~visionpe.policy.functions.resize_window_aware`, or
            ``window_aware(7)`` with the side of the window.
        window: Tokens along each axis of the model's windows, for ``window_aware`` without a number.

    Returns:
        ``(*size, dim)``; the table itself at its own size.

    Raises:
        ValueError: If ``policy`` is unknown, needs a window and there is none, or one of the last two is exported for
            several sizes.
    """
    choice = as_term(policy, ABSOLUTE_POLICIES)
    # The graph of an export serves every size, so it must not branch on one.
    if is_trained_size(tuple(table.shape[:-1]), tuple(size)):
        return table
    if choice.name not in TABLE_POLICIES:
        refuse_export(choice, tuple(TABLE_POLICIES), size)
    if choice.name == "fourier":
        return resize_fourier(table, size)
    if choice.name == "window_aware":
        sides = window if window is not None and not choice.values else [int(choice.number())] * len(size)
        return resize_window_aware(table, size, sides[: len(size)])
    return resize_map(table.movedim(-1, 0)[None], size, choice)[0].movedim(0, -1)


def resize_window_aware(table: Tensor, size: Sequence[int], window: Sequence[int]) -> Tensor:
    """Repeat what a table says of the places in a window, and interpolate the rest.

    Source: "Window Attention is Bugged: How not to Interpolate Position Embeddings", arXiv 2311.05613, section 4.
    There the two are separate parameters; of one table, the window part is its mean over the windows
    (:func:`~visionpe.policy.functions.window_part`), and the rest is what remains, resized by ``bicubic_antialias``.

    Args:
        table: ``(*trained, dim)``.
        size: New tokens along each axis.
        window: Tokens of a window along each axis.

    Returns:
        ``(*size, dim)``; the table itself at its own size.
    """
    if tuple(table.shape[:-1]) == tuple(size):
        return table
    wide = table.to(torch.promote_types(table.dtype, torch.float32))
    part = window_part(wide, window)
    rest = resize_table(wide - tiled(part, wide.shape[:-1]), size)
    return (tiled(part, size) + rest).to(table.dtype)


def sample_table(table: Tensor, places: Tensor) -> Tensor:
    """Read a table of absolute positions at fractional places, linearly between its entries.

    Args:
        table: ``(*size, dim)``, any number of axes.
        places: ``(..., axes)``, in entries; beyond the border they count as on it. At whole places the result is the
            entry, to the last bit.

    Returns:
        ``(..., dim)``, in the wider of both dtypes.
    """
    size = table.shape[:-1]
    flat = table.to(torch.promote_types(table.dtype, places.dtype)).flatten(0, -2)  # (entries, dim)
    inside = [p.clamp(0, n - 1) for p, n in zip(places.unbind(-1), size)]
    total = torch.zeros((), device=flat.device, dtype=flat.dtype)
    for corner in product((0, 1), repeat=len(size)):
        index, share = torch.zeros((), device=flat.device, dtype=torch.long), torch.ones_like(inside[0])
        for p, n, upper in zip(inside, size, corner):
            low = p.floor()
            index = index * n + (low.long() + upper).clamp(max=n - 1)
            share = share * (p - low if upper else 1 - (p - low))
        total = total + flat[index] * share[..., None]
    return total
