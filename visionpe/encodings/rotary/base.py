"""What every rotary encoding shares: coordinates to angles, and the rotation itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from visionpe.base import PositionEncoding
from visionpe.checks import check_choice, check_counts, check_flag, check_number, shown
from visionpe.encodings.rotary.pairs import Layout, rotate_pairs
from visionpe.grid import Grid
from visionpe.policy.functions.frequencies import adapt_frequencies, yarn_temperature
from visionpe.policy.functions.positions import POSITION_POLICIES, exponent, is_trained_size, rescale_positions
from visionpe.policy.grammar import PolicyTerm
from visionpe.precision import without_autocast
from visionpe.ranges import MAX_SIDE
from visionpe.tracing import is_tracing

# Whether the first band of pairs turns with the first axis of the grid, the row of an image, or with the last.
GridIndexing = Literal["ij", "xy"]


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
        context: See :class:`~visionpe.base.PositionEncoding`.

    Raises:
        ValueError: If the head dimension is no multiple of 4, ``p`` lies outside 0 to 1, ``layout`` is unknown, or
            ``fractional`` or ``ref_feat_shape`` is asked of an encoding whose coordinates are not in tokens, or
            ``fractional`` along with a policy.
    """

    policies: ClassVar[tuple[str, ...]] = (*POSITION_POLICIES, "ntk", "yarn", "riflex")
    modifiers: ClassVar[tuple[str, ...]] = ("resonance", "p")
    # Frequencies without parameters give one table for all layers, which is worth keeping.
    fixed = True
    # Whether frequencies are radians per token; else coordinates have a unit of their own.
    in_tokens = True
    fractional = False

    def __init__(
        self,
        *,
        p: float = 0.0,
        layout: Layout = "adjacent",
        grid_offset: float = 0.0,
        ref_feat_shape: int | Sequence[int] | None = None,
        fractional: bool = False,
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
        if self.head_dim % 4:
            raise ValueError(
                f"dim={self.dim} and num_heads={self.num_heads} give head dimension {self.head_dim}; "
                f"{self.name} turns channel pairs on two axes and needs a multiple of 4"
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
        """What the frequencies are multiplied by: positions in tokens as the policy scales them.

        Returns:
            One tensor an axis, in the order of ``grid.size``: ``(n,)`` where the grid is dense, else ``([B,] N)``.
        """
        # A fraction times the trained tokens is what the policy `interpolate` makes of a position.
        policy = PolicyTerm("interpolate") if self.fractional else self._rescaling
        places = zip(self._axes(grid, device, dtype), grid.size, self.grid_size, self.spans)
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

    def _adapted(self, freqs: Tensor, grid: Grid) -> Tensor:
        """The frequencies ``(axes, heads, pairs)`` under the policies that change them, each axis on its own ratio."""
        choices = [choice for choice in self.policy_terms if choice.name in ("ntk", "yarn", "riflex", "resonance")]
        if not choices:
            return freqs
        fastest, slowest = self.extremes(freqs)
        adapted = []
        axes = zip(freqs, grid.size[::-1], self.grid_size[::-1], self.units(grid)[::-1], fastest, slowest)
        for f, size, trained, unit, high, low in axes:  # numbers, not a tensor of them, which would be copied each time
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
        if grid.dense and self.layout == "adjacent" and not (torch.is_grad_enabled() or is_tracing()):
            return _dense_rotation(scaled, freqs, grid)
        which = -1 if self.layout == "adjacent" else -2  # where cosine and sine stand
        if not grid.dense:
            angles = sum(p[..., None, :, None] * f[:, None] for p, f in zip(scaled, freqs.flip(0)))
            rotation = torch.stack(_unit(torch.as_tensor(angles)), dim=which)  # ([B,] heads, N, pairs, 2)
        else:
            # cos and sin of a sum of angles, from those of each axis: height + width values instead of their product
            cos, sin = _unit(scaled[0][:, None] * freqs[-1][:, None])  # (heads, n_0, pairs)
            for p, f in zip(scaled[1:], freqs[:-1].flip(0)):
                c, s = (t[:, None] for t in _unit(p[:, None] * f[:, None]))  # (heads, 1, n, pairs)
                cos, sin = cos[:, :, None], sin[:, :, None]
                cos, sin = (t.flatten(1, 2) for t in (cos * c - sin * s, sin * c + cos * s))
            rotation = torch.stack((cos, sin), dim=which)  # (heads, N, pairs, 2)
        if grid.prefix:  # cosine 1, sine 0: prefix tokens stay as they are, to the last bit
            still = rotation.new_zeros(*rotation.shape[:-3], grid.prefix, *rotation.shape[-2:])
            still.select(which, 0).fill_(1)
            rotation = torch.cat((still, rotation), dim=-3)
        return rotation

    def _axes(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        if grid.dense:
            places = grid.axis_positions(device=device, dtype=dtype)
        else:
            places = list(grid.positions(device=device, dtype=dtype).unbind(-1))
        return [p + self.grid_offset for p in places] if self.grid_offset else places

    def rotation(self, grid: Grid, *, layer: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Cosine and sine for every token, as :func:`rotate_pairs` takes them, in at least float32."""
        dtype = torch.promote_types(dtype, torch.float32)
        if not self.fixed:
            return self._compute(grid, layer, device, dtype)
        key = (grid.size, grid.prefix, self.policy, self.grid_size, device, dtype)
        if grid.dense:
            return self.cache.get(key, lambda: self._compute(grid, layer, device, dtype))
        return grid.keep((self, *key), lambda: self._compute(grid, layer, device, dtype))

    def extra_repr(self) -> str:
        return "fractional=True" if self.fractional else super().extra_repr()

    def rotate(self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0) -> tuple[Tensor, Tensor]:
        with without_autocast(q):
            rotation = self.rotation(grid, layer=layer, device=q.device, dtype=q.dtype)
            q, k = (rotate_pairs(x, rotation, self.layout, len(self.grid_size)) for x in (q, k))
            return q, k
