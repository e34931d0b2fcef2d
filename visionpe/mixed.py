"""Images of several sizes in one batch: where the tokens of each stand, and how they share a tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from visionpe.grid import Grid, OfOnePass
from visionpe.opaque import opaque

V = TypeVar("V")


def places(groups: Iterable[Iterable[int]]) -> list[int]:
    """Where 0, 1, 2, ... are, when groups of these follow each other."""
    order = [sample for group in groups for sample in group]
    return sorted(range(len(order)), key=order.__getitem__)


@dataclass(frozen=True)
class Part:
    """Images of one size.

    Args:
        grid: Where the tokens of each stand.
        samples: Their places in the batch.
    """

    grid: Grid
    samples: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Of all of them."""
        return len(self.samples) * self.grid.num_tokens


@opaque
@dataclass(frozen=True)
class MixedGrid(OfOnePass):
    """Where the tokens of images of several sizes stand that share a tensor.

    Padded, that is ``(B, N, ...)`` with N tokens of the longest image, and nothing is told of what is behind those of
    a shorter one. Packed, it is ``(1, tokens of all, ...)``, the parts one after the other, where nothing is padded.
    Encodings and policies see one part at a time, with its own :class:`~visionpe.grid.Grid`.

    Args:
        parts: Images of one size each; together their samples are 0 to B - 1.
        packed: Which of the two.
    """

    parts: tuple[Part, ...]
    packed: bool
    _kept: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def prefix(self) -> int:
        """Prefix tokens of every image."""
        return self.parts[0].grid.prefix

    @property
    def batch(self) -> int:
        """Images."""
        return sum(len(part.samples) for part in self.parts)

    @property
    def longest(self) -> int:
        """Tokens of the longest image."""
        return max(part.grid.num_tokens for part in self.parts)

    @cached_property
    def _places(self) -> list[int]:
        """Where in the parts, one after the other, the images of the batch are."""
        return places([part.samples for part in self.parts])

    def _index(self, key: Any, build: Callable[[], Sequence[int]], device: torch.device) -> Tensor:
        return self.keep((key, device), lambda: torch.tensor(build(), device=device))

    def split(self, x: Tensor) -> list[Tensor]:
        """Each part alone, ``(its images, its tokens, ...)``."""
        if self.packed:
            pieces = x[0].split([part.tokens for part in self.parts])
            return [t.unflatten(0, (len(part.samples), -1)) for t, part in zip(pieces, self.parts)]
        return [x.index_select(0, self._rows(part, x.device))[:, : part.grid.num_tokens] for part in self.parts]

    def _rows(self, part: Part, device: torch.device) -> Tensor:
        return self._index(part.samples, lambda: part.samples, device)

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """The inverse of :meth:`split`; what is padded is zero."""
        if self.packed:
            return torch.cat([t.flatten(0, 1) for t in parts])[None]
        longest = self.longest
        padded = [F.pad(t, (0, 0) * (t.ndim - 2) + (0, longest - t.shape[1])) for t in parts]
        return torch.cat(padded).index_select(0, self._index("places", lambda: self._places, parts[0].device))

    def each(self, act: Callable[..., Tensor], *tensors: Tensor | None) -> Tensor:
        """``act(grid, *tensors)`` on the parts of tensors, joined; a tensor that is None stays so."""
        split = [[None] * len(self.parts) if t is None else self.split(t) for t in tensors]
        return self.join([act(part.grid, *pieces) for part, *pieces in zip(self.parts, *split)])

    def in_order(self, parts: Sequence[Sequence[V]]) -> list[V]:
        """What each part has for each of its images, in the order of the batch."""
        every = [value for part in parts for value in part]
        return [every[place] for place in self._places]

    def valid(self, device: torch.device) -> Tensor:
        """Which tokens of a padded tensor are of an image: boolean ``(B, N)``."""
        lengths = self.in_order([[part.grid.num_tokens] * len(part.samples) for part in self.parts])
        index = self._index("lengths", lambda: lengths, device)
        return torch.arange(self.longest, device=device) < index[:, None]

    def image_of_token(self, device: torch.device) -> Tensor:
        """The image that each token of a packed tensor is of, ``(tokens of all,)``."""

        def images() -> list[int]:
            return [i for part in self.parts for i in part.samples for _ in range(part.grid.num_tokens)]

        return self._index("images", images, device)


def mixed_grid(parts: Sequence[Part], packed: bool | None = None) -> MixedGrid:
    """The layout of some parts; by default packed where padding would add a tenth to the tokens, or more."""
    padded = MixedGrid(tuple(parts), False)
    if packed is None:
        tokens = sum(part.tokens for part in parts)
        packed = padded.longest * padded.batch >= 1.1 * tokens
    return MixedGrid(padded.parts, True) if packed else padded
