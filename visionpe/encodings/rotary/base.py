"""What every rotary encoding shares: coordinates to angles, and the rotation itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from math import prod
from numbers import Real
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from visionpe.base import PositionEncoding
from visionpe.checks import check_choice, check_counts, check_flag, check_number, shown
from visionpe.encodings.rotary.augment import CoordinateAugmentation
from visionpe.encodings.rotary.pairs import Layout, rotate_pairs
from visionpe.encodings.rotary.tables import rotation_table
from visionpe.grid import Grid
from visionpe.policy.functions.frequencies import adapt_frequencies, yarn_temperature
from visionpe.policy.functions.positions import POSITION_POLICIES, exponent, is_trained_size, rescale_positions
from visionpe.policy.grammar import PolicyTerm
from visionpe.precision import without_autocast
from visionpe.ranges import MAX_SIDE

# Whether the first band of pairs turns with the first axis of the grid, the row of an image, or with the last.
GridIndexing = Literal["ij", "xy"]


class WideParameters(nn.Module):
    """Keeps parameters in float32 where the model is cast to a 16-bit dtype, because angles need the digits."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        def move(t: Tensor) -> Tensor:
            moved = fn(t)
            return t.to(moved.device) if moved.dtype in (torch.float16, torch.bfloat16) else moved

        return super()._apply(move, recurse)


class RotaryEncoding(WideParameters, PositionEncoding):
    """Base of the rotary encodings: a query at p and a key at r meet at an angle that depends on p - r alone.

    A subclass says at which frequency each channel pair turns along each axis; angles, policies, prefix tokens and
    precision are settled here. Angles and rotation are float32 whatever the dtype of the tokens, because bfloat16
    coordinates are wrong by 0.3 to 0.6 at 32 to 64 tokens a side.

    Args:
        p: Fraction of the channel pairs that do not turn, the slowest of each axis: 0 is plain RoPE, 1 none at all.
            Source: "Round and Round We Go! What makes Rotary Positional Encodings useful?", arXiv 2410.06205, section
            6.2, whose own p is the fraction that does turn.
        layout: Which channels are a pair, see :func:`~visionpe.encodings.rotary.pairs.rotate_pairs`; ``axis_half`` has
            a chunk for each axis. Published weights exist in all three, and no key of a file tells which it needs.
        grid_offset: Position of the first token on every axis, in tokens: 1 where they are counted from 1. It turns
            patches against prefix tokens, which do not turn.
        ref_feat_shape: Tokens an axis, one number or one for each, that positions span at ``grid_size``, so that a
            step is their ratio; None for ``grid_size``. As EVA-02 is trained at one size and tuned at a larger one:
            under the policy ``interpolate`` positions span them at every size.
        fractional: A position is the fraction of its axis, from 0 to 1, times the trained number of tokens, so that
            every size spans the same range, in training at several sizes too. It takes the place of the policies.
            Source: the fractional coordinates of NaViT, arXiv 2307.06304.
        shift_coords, jitter_coords, rescale_coords: In training coordinates move at random, see
            :class:`~visionpe.encodings.rotary.augment.CoordinateAugmentation`; None for not. Under ``torch.compile``
            every layer draws its own.
        context: See :class:`~visionpe.base.PositionEncoding`.

    Raises:
        ValueError: If the head dimension is no multiple of 4 (on three axes of 2), ``p`` lies outside 0 to 1,
            ``layout`` is unknown, or ``fractional`` or ``ref_feat_shape`` is asked of an encoding whose coordinates
            are not in tokens, or ``fractional`` along with a policy.
    """

    policies: ClassVar[tuple[str, ...]] = (*POSITION_POLICIES, "ntk", "yarn", "riflex")
    modifiers: ClassVar[tuple[str, ...]] = ("resonance", "p")
    # Frequencies without parameters give one table for all layers, which is worth keeping.
    fixed = True
    takes_pooled = True
    # Whether frequencies are radians per token; else coordinates have a unit of their own.
    in_tokens = True
    # What the head dimension must be a multiple of: a pair for each of two axes.
    channels: ClassVar[int] = 4
    fractional = False

    def __init__(
        self,
        *,
        p: float = 0.0,
        layout: Layout = "adjacent",
        grid_offset: float = 0.0,
        ref_feat_shape: int | Sequence[int] | None = None,
        fractional: bool = False,
        shift_coords: float | None = None,
        jitter_coords: float | None = None,
        rescale_coords: float | None = None,
        **context: Any,
    ) -> None:
        super().__init__(**context)
        check_flag("fractional", fractional)
        if not self.in_tokens and (fractional or ref_feat_shape is not None):
            given = "fractional=True" if fractional else f"ref_feat_shape={shown(ref_feat_shape)}"
            raise ValueError(
                f"{given}: the coordinates of {self.name!r} are not in tokens but fractions of the image already, "
                f"under the policy 'interpolate'; allowed: {False if fractional else None}"
            )
        check_number("p", p, 0, 1, kind="fraction")
        check_choice("layout", layout, Layout)
        self.p, self.layout, self.fractional = p, layout, fractional
        self.augmentation = CoordinateAugmentation(shift_coords, jitter_coords, rescale_coords)
        self.grid_offset = check_number("grid_offset", grid_offset, -MAX_SIDE, MAX_SIDE)
        self.ref_feat_shape: tuple[int, ...] | None = None
        if ref_feat_shape is not None:
            axes = len(self.grid_size)
            sides = (ref_feat_shape,) * axes if isinstance(ref_feat_shape, Real) else ref_feat_shape
            self.ref_feat_shape = check_counts("ref_feat_shape", sides, axes, 1, MAX_SIDE)
        if fractional:
            if self.policy_is_chosen:
                self.set_policy(str(self.policy))  # which says why there is none to choose
            self.policies, self.modifiers, self.policy = (), (), None  # type: ignore[misc]
            self.without_policy = f"{self.name!r} has no policy with fractional=True"
            self.mark_as_built()
        # Of a third of the pairs for each of three axes something may be left over, which stands still.
        three = len(self.grid_size) == 3
        channels = 2 if three else self.channels
        if self.head_dim % channels:
            told = "one axis" if self.channels == 2 else "three axes" if three else "two axes"
            raise ValueError(
                f"dim={self.dim} and num_heads={self.num_heads} give head dimension {self.head_dim}; "
                f"{self.name} turns channel pairs on {told} and needs a multiple of {channels}"
            )

    def set_policy(self, policy: str) -> None:
        if self.fractional:
            raise ValueError(
                f"policy={policy!r}: {self.name!r} has no policy with fractional=True, which spans the trained range "
                "at every size"
            )
        super().set_policy(policy)

    @abstractmethod
    def frequencies(self, layer: int, device: torch.device) -> Tensor:
        """Radians per token, ``(axes, heads or 1, head_dim / 2)``, axes fastest first: x, y, time.

        The pairs fall into one band an axis, the fastest pair of each band first.
        """

    def coordinates(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        """What the frequencies are multiplied by, moved at random in training if that was asked.

        Returns:
            One tensor an axis, in the order of ``grid.size``: ``(n,)`` where the grid is dense, else ``([B,] N)``.
        """
        places = self.places(grid, device, dtype)
        return self.augmentation(places, grid) if self._augments else places

    @property
    def _augments(self) -> bool:
        return self.training and self.augmentation.active

    def places(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        """Positions in tokens as the policy scales them, in the shapes of :meth:`coordinates`."""
        return self.scaled(self._axes(grid, device, dtype), grid)

    def scaled(self, positions: Sequence[Tensor], grid: Grid) -> list[Tensor]:
        """Positions along each axis, in tokens, as the policy scales them."""
        # A fraction times the trained tokens is what the policy `interpolate` makes of a position.
        policy = PolicyTerm("interpolate") if self.fractional else self._rescaling
        places = zip(positions, grid.size, self.grid_size, self.spans)
        return [self._scaled(p, n, trained, span, policy) for p, n, trained, span in places]

    @staticmethod
    def _scaled(p: Tensor, size: Any, trained: int, span: int, policy: PolicyTerm | None) -> Tensor:
        if exponent(policy) == 1:
            return p / size * span  # in this order, as EVA-02 and Perception Encoder have it, to the last bit
        p = rescale_positions(p, size, trained, policy)
        return p if span == trained else p / trained * span

    @property
    def spans(self) -> tuple[int, ...]:
        """What positions span at the trained grid, in the order of it."""
        return self.ref_feat_shape or self.grid_size

    @property
    def _rescaling(self) -> PolicyTerm | None:
        """The policy in force if it rescales coordinates; other policies keep them and change the frequencies."""
        return self.main_policy if self.main_policy and self.main_policy.name in POSITION_POLICIES else None

    def _turning(self, freqs: Tensor, grid: Grid) -> Tensor:
        """The frequencies without those of the slowest pairs of each band."""
        still, p = self.modifier("p"), self.p
        if still and not is_trained_size(grid.size, self.grid_size):
            p = max(p, still.number())
        if not p:
            return freqs
        return freqs.masked_fill(self.slowest_pairs(freqs, p), 0)

    def slowest_pairs(self, freqs: Tensor, share: float) -> Tensor:
        """True for the slowest pairs of each axis, ``(pairs,)``.

        Args:
            freqs: ``(axes, heads, pairs)``.
            share: Of the pairs of an axis.
        """
        bands = freqs.shape[-1] // len(freqs)
        place = torch.arange(freqs.shape[-1], device=freqs.device) % bands
        return place >= bands - round(share * bands)

    def extremes(self, freqs: Tensor) -> tuple[Tensor, Tensor]:
        """Fastest and slowest frequency that the base spans along each axis, ``(axes, 1, 1)``, radians a token.

        Args:
            freqs: ``(axes, heads, pairs)``.
        """
        size = freqs.abs().flatten(1)
        slowest = size.masked_fill(size == 0, float("inf")).amin(1)
        return size.amax(1)[:, None, None], slowest[:, None, None]

    def units(self, grid: Grid) -> list[float]:
        """Coordinates that a step of one token makes along each axis, in the order of ``grid.size``."""
        return [span / trained for span, trained in zip(self.spans, self.grid_size)]

    def lengths(self, grid: Grid) -> list[tuple[Any, int, float]]:
        """Of each axis of :meth:`frequencies`: tokens now, tokens in training, coordinates that a step makes."""
        return list(zip(grid.size[::-1], self.grid_size[::-1], self.units(grid)[::-1]))

    def _adapted(self, freqs: Tensor, grid: Grid) -> Tensor:
        """The frequencies ``(axes, heads, pairs)`` under the policies that change them, each axis on its own ratio."""
        choices = [choice for choice in self.policy_terms if choice.name in ("ntk", "yarn", "riflex", "resonance")]
        if not choices:
            return freqs
        fastest, slowest = self.extremes(freqs)
        adapted = []
        axes = zip(freqs, self.lengths(grid), fastest, slowest)
        for f, (
            size,
            trained,
            unit,
        ), high, low in axes:  # numbers, not a tensor of them, which would be copied each time
            if not is_trained_size(size, trained):
                f = adapt_frequencies(f * unit, size, trained, choices, high * unit, low * unit) / unit
            adapted.append(f)
        return torch.stack(adapted)

    def logit_factor(self, grid: Grid) -> float:
        if self.main_policy is None or self.main_policy.name != "yarn" or is_trained_size(grid.size, self.grid_size):
            return 1.0
        return yarn_temperature(grid.size, self.grid_size)

    def _compute(self, grid: Grid, layer: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        return self._rotation_at(self.frequencies(layer, device).to(dtype), grid)

    def _rotation_at(self, freqs: Tensor, grid: Grid) -> Tensor:
        """From frequencies ``(axes, heads, pairs)`` in the dtype to compute in."""
        device, dtype = freqs.device, freqs.dtype
        self.check_axes(grid)
        freqs, scaled = self._turning(self._adapted(freqs, grid), grid), self.coordinates(grid, device, dtype)
        return rotation_table(scaled, freqs, grid, self.layout)

    def _axes(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        if grid.dense:
            places = grid.axis_positions(device=device, dtype=dtype)
        else:
            places = list(grid.positions(device=device, dtype=dtype).unbind(-1))
        return [p + self.grid_offset for p in places] if self.grid_offset else places

    def rotation(self, grid: Grid, *, layer: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Cosine and sine for every token, as :func:`rotate_pairs` takes them, in at least float32."""
        dtype = torch.promote_types(dtype, torch.float32)
        if not self.fixed or self._augments:
            return self._compute(grid, layer, device, dtype)
        key = (grid.size, grid.prefix, self.policy, self.grid_size, device, dtype)
        if grid.dense:
            return self.cache.get(key, lambda: self._compute(grid, layer, device, dtype))
        return grid.keep((self, *key), lambda: self._compute(grid, layer, device, dtype))

    def extra_repr(self) -> str:
        return "fractional=True" if self.fractional else super().extra_repr()

    def rotate(self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0) -> tuple[Tensor, Tensor]:
        with without_autocast(q):
            rotations = self._rotations(grid, layer=layer, device=q.device, dtype=q.dtype)
            q, k = (rotate_pairs(x, each, self.layout, len(self.grid_size)) for x, each in zip((q, k), rotations))
            return q, k

    def _rotations(self, grid: Grid, *, layer: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Of the queries and of the keys, which are others where attention pools."""
        if grid.queries is None:
            return (self.rotation(grid, layer=layer, device=device, dtype=dtype),) * 2

        def both() -> Grid:  # as one sequence, so that what is drawn at random is the same for both
            coords = torch.cat(grid.query_and_key_positions(device=device))
            return Grid(grid.finer.size, grid.prefix, coords=coords, known="finite")

        rotation = self.rotation(grid.keep(("both", device), both), layer=layer, device=device, dtype=dtype)
        prefix, queries, keys = rotation.split([grid.prefix, prod(grid.queries), grid.num_spatial], dim=-3)
        return torch.cat((prefix, queries), dim=-3), torch.cat((prefix, keys), dim=-3)
