"""What every rotary encoding shares: coordinates to angles, and the rotation itself."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from visionpe.base import PositionEncoding
from visionpe.checks import check_choice, check_flag, check_number
from visionpe.grid import Grid
from visionpe.policy.functions.frequencies import adapt_frequencies, yarn_temperature
from visionpe.policy.functions.positions import POSITION_POLICIES, is_trained_size, rescale_positions
from visionpe.policy.grammar import PolicyTerm
from visionpe.precision import without_autocast
from visionpe.tracing import is_tracing

Layout = Literal["adjacent", "half"]


def rotate_pairs(x: Tensor, rotation: Tensor, layout: Layout = "adjacent") -> Tensor:
    """Turn channel pairs: ``(a, b) -> (a cos - b sin, a sin + b cos)``, in at least float32.

    Args:
        x: ``(B, heads, N, head_dim)``.
        rotation: Cosine and sine, with a leading batch axis if they differ: ``(heads or 1, N, head_dim / 2, 2)`` for
            adjacent pairs, ``(heads or 1, N, 2, head_dim / 2)`` for half-split ones.
        layout: Which channels are a pair: ``adjacent`` (2 i, 2 i + 1), ``half`` (i, i + head_dim / 2).

    Returns:
        Like ``x``, in the dtype of ``x``.
    """
    if layout == "half":
        (a, b), (cos, sin) = x.to(rotation.dtype).chunk(2, dim=-1), rotation.unbind(-2)
        return torch.cat((torch.addcmul(a * cos, b, sin, value=-1), torch.addcmul(b * cos, a, sin)), dim=-1).to(x.dtype)
    pairs = x.to(rotation.dtype).unflatten(-1, (-1, 2))  # (B, heads, N, head_dim / 2, 2)
    if is_tracing():  # the compiler fuses real arithmetic, but no complex one
        (a, b), (cos, sin) = pairs.unbind(-1), rotation.unbind(-1)
        turned = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1)
    else:  # one pass over memory, several times faster
        if pairs.stride(-1) != 1 or any(step % 2 for step in pairs.stride()[:-1]):  # as another encoding left it
            pairs = pairs.contiguous()
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(rotation))
    return turned.flatten(-2).to(x.dtype)


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
        layout: Which channels are a pair; see :func:`rotate_pairs`. Published weights exist in both.
        fractional: A position is the fraction of its axis, from 0 to 1, times the trained number of tokens, so that
            every size spans the same range, in training at several sizes too. It takes the place of the policies.
            Source: the fractional coordinates of NaViT, arXiv 2307.06304.
        context: See :class:`~visionpe.base.PositionEncoding`.

    Raises:
        ValueError: If the head dimension is no multiple of 4, ``p`` lies outside 0 to 1, ``layout`` is unknown, or
            ``fractional`` is asked of an encoding whose coordinates are not in tokens, or along with a policy.
    """

    policies: ClassVar[tuple[str, ...]] = (*POSITION_POLICIES, "ntk", "yarn", "riflex")
    modifiers: ClassVar[tuple[str, ...]] = ("resonance", "p")
    # Frequencies without parameters give one table for all layers, which is worth keeping.
    fixed = True
    # Whether frequencies are radians per token; else coordinates have a unit of their own.
    in_tokens = True
    fractional = False

    def __init__(
        self, *, p: float = 0.0, layout: Layout = "adjacent", fractional: bool = False, **context: Any
    ) -> None:
        super().__init__(**context)
        check_flag("fractional", fractional)
        if fractional and not self.in_tokens:
            raise ValueError(
                f"fractional=True: the coordinates of {self.name!r} are not in tokens but fractions of the image "
                "already, under the policy 'interpolate'; allowed: False"
            )
        check_number("p", p, 0, 1, kind="fraction")
        check_choice("layout", layout, Layout)
        self.p, self.layout, self.fractional = p, layout, fractional
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
        return [
            rescale_positions(p, n, trained, policy)
            for p, n, trained in zip(self._axes(grid, device, dtype), grid.size, self.grid_size)
        ]

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
        bands = freqs.shape[-1] // len(freqs)
        place = torch.arange(freqs.shape[-1], device=freqs.device) % bands
        return freqs.masked_fill(place >= bands - round(p * bands), 0)

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
        return [1.0] * grid.axes

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

    @staticmethod
    def _axes(grid: Grid, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        if grid.dense:
            return grid.axis_positions(device=device, dtype=dtype)
        return list(grid.positions(device=device, dtype=dtype).unbind(-1))

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
            return rotate_pairs(q, rotation, self.layout), rotate_pairs(k, rotation, self.layout)
