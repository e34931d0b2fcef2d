"""Cutting a map into windows or stripes, and which tokens may see each other there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from visionpe.opaque import opaque
from visionpe.tracing import is_exporting, larger

Pair = tuple[int, int]


@opaque
@dataclass(frozen=True)
class Windows:
    """A map cut into windows of one size; stripes are windows as long as the map.

    A map that they do not divide is padded with zeros. Windows are shifted in one of two ways that give the same
    attention: ``rolled``, where the map is rolled around its edges and windows hold what does not belong together
    (fewer windows), or by padding ahead, where they hold neighbours alone (what a convolution inside them needs).

    Args:
        size: Height and width of the map, tokens.
        window: Height and width of a window, tokens.
        shift: How far the windows move down and right, tokens, 0 to the window less one. The first window then
            holds the first ``shift`` rows.
        rolled: How they move.
        centred: Split the padding into halves, the smaller one ahead, where the windows are not shifted.
        spare: Further windows of padding below and right, which must change nothing.
        interval: Rows and columns from one token of a window to the next, where they stand apart (:class:`Dilated`).

    Attributes:
        before: Rows and columns of padding ahead of the map.
        counts: Windows along each axis.
        padded: Height and width with the padding.
        pads: True where there is padding, and wherever that cannot be known: an exported graph serves every size.
        moves: True where the map is rolled, and where that cannot be known.
    """

    size: Pair
    window: Pair
    shift: Pair = (0, 0)
    rolled: bool = True
    centred: bool = False
    spare: Pair = (0, 0)
    interval: Pair | None = None
    before: Pair = field(init=False, repr=False, compare=False)
    counts: Pair = field(init=False, repr=False, compare=False)
    padded: Pair = field(init=False, repr=False, compare=False)
    pads: bool = field(init=False, repr=False, compare=False)
    moves: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        keep = partial(object.__setattr__, self)  # each is asked for several times a block
        keep("before", self._before())
        counts = [
            self._along(n + b, axis) + more for axis, (n, b, more) in enumerate(zip(self.size, self.before, self.spare))
        ]
        keep("counts", (_never_one(counts[0]), _never_one(counts[1])))
        keep("padded", (self.counts[0] * self.window[0], self.counts[1] * self.window[1]))
        keep("pads", is_exporting() or self.padded != tuple(self.size))
        keep("moves", _moves(self.roll))

    def _before(self) -> Pair:
        if not self.rolled and _moves(self.shift):
            return _pair((w - s) % w for w, s in zip(self.window, self.shift))
        return _pair((-n % w) // 2 for n, w in zip(self.size, self.window)) if self.centred else (0, 0)

    def _along(self, length: int, axis: int) -> int:
        """Windows that hold so many rows or columns."""
        return -(-length // self.window[axis])

    @property
    def number(self) -> int:
        return prod(self.counts)

    @property
    def tokens(self) -> int:
        """Tokens in a window."""
        return prod(self.window)

    @property
    def roll(self) -> Pair:
        return self.shift if self.rolled else (0, 0)

    @property
    def masks(self) -> bool:
        """True where some tokens of a window must not see each other."""
        return self.pads or self.moves

    def split(self, x: Tensor) -> Tensor:
        """``(B, height, width, ...)`` to ``(B * windows, tokens, ...)``, windows in row-major order."""
        if self.pads:
            (top, left), (height, width) = self.before, self.size
            down, right = self.padded[0] - height - top, self.padded[1] - width - left
            x = F.pad(x, (*[0] * 2 * (x.ndim - 3), left, right, top, down))
        if self.moves:
            x = x.roll((-self.roll[0], -self.roll[1]), dims=(1, 2))
        return self._cut(x)

    def _cut(self, x: Tensor) -> Tensor:
        (rows, columns), (height, width) = self.counts, self.window
        x = x.reshape(x.shape[0], rows, height, columns, width, *x.shape[3:])
        return x.transpose(2, 3).reshape(-1, height * width, *x.shape[5:])

    def join(self, x: Tensor) -> Tensor:
        """``(B * windows, tokens, C)`` to ``(B, height, width, C)``, without the padding."""
        (rows, columns), (height, width) = self.counts, self.window
        x = x.reshape(-1, rows, columns, height, width, x.shape[-1]).transpose(2, 3)
        x = x.reshape(-1, rows * height, columns * width, x.shape[-1])
        if self.moves:
            x = x.roll(self.roll, dims=(1, 2))
        if self.pads:
            top, left = self.before
            if is_exporting():  # strides of a view would depend on whether there is padding
                for axis, (first, n) in enumerate(zip(self.before, self.size), start=1):
                    x = x.index_select(axis, first + torch.arange(n, device=x.device))
                return x
            x = x[:, top : top + self.size[0], left : left + self.size[1]]
        return x

    def _sources(self, device: torch.device | str | None) -> list[tuple[Tensor, Tensor]]:
        """For each axis, where on the map a padded and rolled place comes from, and whether it wrapped around."""
        axes = []
        for b, shift, p in zip(self.before, self.roll, self.padded):
            source = torch.arange(p, device=device) + shift
            wrapped = source >= p
            axes.append((torch.where(wrapped, source - p, source) - b, wrapped))
        return axes

    def gather(self, device: torch.device | str | None = None) -> tuple[Tensor, Tensor]:
        """:meth:`split` and :meth:`join` as one copy each, where a mask hides what the padding holds.

        Returns:
            The token of the map for every place in the windows, ``(windows * tokens,)``, some token where there is
            padding; and the place of every token of the map, ``(height * width,)``.
        """
        rows, columns = (s.clamp(0, n - 1) for (s, _), n in zip(self._sources(device), self.size))
        order = self._cut((rows[:, None] * self.size[1] + columns)[None]).flatten()
        places = self.join(torch.arange(order.shape[0], device=device).view(-1, self.tokens, 1)).flatten()
        return order, places

    def mask(self, device: torch.device | str | None = None) -> Tensor:
        """Which tokens of a window may see each other: boolean ``(windows, 1, tokens, tokens)``.

        Those of the map see each other where they are neighbours there; padding sees padding, so that no row is empty.
        """
        axes = []
        for (place, wrapped), n in zip(self._sources(device), self.size):
            axes.append(torch.where((place >= 0) & (place < n), wrapped.long(), 4))
        regions = 2 * axes[0][:, None] + axes[1]  # 0 to 3 on the map
        regions = torch.where((axes[0][:, None] > 3) | (axes[1] > 3), 4, regions)
        regions = self._cut(regions[None])  # (windows, tokens)
        return (regions[:, :, None] == regions[:, None, :])[:, None]

    def pooled(self, stride: Pair) -> Windows:
        """The same windows, none of them moved, on the map whose tokens were pooled by a stride that divides them."""
        height, width = ((n + s - 1) // s for n, s in zip(self.size, stride))
        down, right = (w // s for w, s in zip(self.window, stride))
        other = Windows((height, width), (down, right))
        keep = partial(object.__setattr__, other)
        keep("counts", self.counts)  # in an exported graph nobody could tell that they are the same number
        keep("padded", (self.counts[0] * down, self.counts[1] * right))
        keep("pads", is_exporting() or other.padded != other.size)
        return other

    def inside(self, device: torch.device | str | None = None) -> Tensor:
        """Which tokens of the windows are of the map: boolean ``(windows, tokens)``."""
        return self.split(torch.ones(1, *self.size, 1, device=device))[..., 0] > 0

    def pooled_additive(self, queries: Windows, device: torch.device | str | None = None) -> Tensor:
        """:meth:`additive` of queries that are cut by other windows, :meth:`pooled` ones."""
        mask = queries.inside(device)[:, :, None] == self.inside(device)[:, None, :]
        return torch.zeros(mask.shape, device=device).masked_fill(~mask, float("-inf"))[:, None]

    def additive(self, device: torch.device | str | None = None) -> Tensor:
        """The same as 0 and minus infinity, float32: added to a bias, far faster than filling by a boolean mask."""
        mask = self.mask(device)
        return torch.zeros(mask.shape, device=device).masked_fill(~mask, float("-inf"))


class WholeMap(Windows):
    """A map that is one window: nothing is cut, padded or masked."""

    def __post_init__(self) -> None:
        plain = {"before": (0, 0), "counts": (1, 1), "padded": self.size, "pads": False, "moves": False}
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    def pooled(self, stride: Pair) -> Windows:
        height, width = ((n + s - 1) // s for n, s in zip(self.size, stride))
        return WholeMap((height, width), (height, width))

    def split(self, x: Tensor) -> Tensor:
        return x.flatten(1, 2)

    def join(self, x: Tensor) -> Tensor:
        return x.unflatten(1, self.size)


class Dilated(Windows):
    """A map cut into windows whose tokens stand apart, as many of them along each axis as ``window`` says.

    By default every window reaches over the whole map, its tokens as far apart as there are windows along the axis
    (MaxViT's grid attention). With ``interval`` the map is cut into regions, as many times as large as a window, and
    each of these into windows whose tokens are so far apart (CrossFormer's long-distance attention). A map that they do
    not divide is padded. They are not shifted.
    """

    @property
    def apart(self) -> Pair:
        """Rows and columns from one token of a window to the next."""
        return self.interval or _pair(-(-n // w) for n, w in zip(self.size, self.window))

    def _before(self) -> Pair:
        if not self.centred:
            return 0, 0
        return _pair((-n % (w * apart)) // 2 for n, w, apart in zip(self.size, self.window, self.apart))

    def _along(self, length: int, axis: int) -> int:
        if self.interval is None:
            return super()._along(length, axis)
        return -(-length // (self.window[axis] * self.interval[axis])) * self.interval[axis]

    def _sources(self, device: torch.device | str | None) -> list[tuple[Tensor, Tensor]]:
        axes = []
        for w, apart, b, p in zip(self.window, self.apart, self.before, self.padded):
            place = torch.arange(p, device=device)
            number, inside = place // w, place % w
            source = (number // apart * w + inside) * apart + number % apart - b  # beyond the map in spare windows
            axes.append((source, torch.zeros_like(source, dtype=torch.bool)))
        return axes

    def split(self, x: Tensor) -> Tensor:
        if not self.pads:
            (rows, columns), (height, width), (down, right) = self.counts, self.window, self.apart
            x = x.reshape(x.shape[0], rows // down, height, down, columns // right, width, right, *x.shape[3:])
            x = x.movedim((1, 3, 4, 6, 2, 5), (1, 2, 3, 4, 5, 6))  # regions and offsets by rows and columns, places
            return x.reshape(-1, height * width, *x.shape[7:])
        for axis, ((source, _), n) in enumerate(zip(self._sources(x.device), self.size), start=1):
            there = ((source >= 0) & (source < n)).view(-1, *[1] * (x.ndim - axis - 1))
            x = x.index_select(axis, source.clamp(0, n - 1)) * there.to(x.dtype)
        return self._cut(x)

    def join(self, x: Tensor) -> Tensor:
        (rows, columns), (height, width), (down, right) = self.counts, self.window, self.apart
        if not self.pads:
            x = x.reshape(-1, rows // down, down, columns // right, right, height, width, x.shape[-1])
            return x.movedim((1, 2, 3, 4, 5, 6), (1, 3, 4, 6, 2, 5)).reshape(-1, *self.size, x.shape[-1])
        x = x.reshape(-1, rows, columns, height, width, x.shape[-1]).transpose(2, 3)
        x = x.reshape(-1, rows * height, columns * width, x.shape[-1])
        for axis, (n, w, apart, b) in enumerate(zip(self.size, self.window, self.apart, self.before), start=1):
            place = torch.arange(n, device=x.device) + b
            region, inside = place // (w * apart), place % (w * apart)
            x = x.index_select(axis, (region * apart + inside % apart) * w + inside // apart)
        return x


def grown_window(window: int, length: int, trained: int) -> int:
    """A side of a window that follows the map, from ``trained`` tokens to ``length``, rounded, at least 1."""
    return larger(1, (2 * window * length + trained) // (2 * trained))


def _never_one(count: int) -> int:
    """At least two windows where the number is a symbol: a graph holds no symbol to be one, and more change nothing."""
    if isinstance(count, int):
        return count
    from torch.fx.experimental.symbolic_shapes import is_concrete_int  # slow to import

    return count if is_concrete_int(count) else larger(count, 2)


def _moves(shift: Pair) -> bool:
    """True where a shift is not zero, or a symbol of an exported graph, which serves every size."""
    return any(not isinstance(n, int) or n != 0 for n in shift)


def _pair(values: Iterable[int]) -> Pair:
    first, second = values
    return first, second
