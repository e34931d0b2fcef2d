"""Where the tokens stand."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor

from visionpe.cameras import Cameras
from visionpe.opaque import opaque
from visionpe.tracing import is_exporting, is_tracing, larger


def check_size(size: Any, prefix: Any) -> None:
    """Refuse what cannot be numbers of tokens; see :class:`Grid`."""
    if isinstance(size, str) or not all(isinstance(n, (int, torch.SymInt)) and n > 0 for n in size) or not len(size):
        raise ValueError(f"size={size!r} is no grid; allowed: positive whole numbers, one an axis")
    if not isinstance(prefix, (int, torch.SymInt)) or prefix < 0:
        raise ValueError(f"prefix={prefix!r} is no number of tokens; allowed: 0 or more")


def check_coords(coords: Any, axes: int) -> None:
    """Refuse what cannot be coordinates; see :class:`Grid`."""
    if not isinstance(coords, Tensor) or coords.dtype.is_complex or coords.dtype == torch.bool:
        what = coords.dtype if isinstance(coords, Tensor) else type(coords).__name__
        raise TypeError(f"coords={what}: no numbers; allowed: a tensor (N, {axes}) or (B, N, {axes})")
    if coords.ndim not in (2, 3) or coords.shape[-1] != axes:
        raise ValueError(f"coords={tuple(coords.shape)} is no shape of them; allowed: (N, {axes}) or (B, N, {axes})")


def check_queries(queries: Any, axes: int, coords: Any) -> None:
    """Refuse what cannot be numbers of queries; see :class:`Grid`."""
    if len(queries) != axes:
        raise ValueError(f"queries={queries!r} has other axes than size; allowed: {axes} numbers")
    if coords is not None:
        raise ValueError(f"queries={queries!r} with coords: pooled tokens fill a grid; allowed: one of the two")


def check_stride(stride: Any, axes: int, queries: Any, coords: Any) -> None:
    """Refuse what cannot be steps from query to query; see :class:`Grid`."""
    if len(stride) != axes or not all(isinstance(n, int) and n > 0 for n in stride):
        raise ValueError(f"stride={stride!r} is none; allowed: {axes} positive whole numbers, one an axis of size")
    if queries is not None or coords is not None:
        given = "coords" if queries is None else "queries"
        raise ValueError(f"stride={stride!r} with {given}: it says which keys are queries; allowed: one of the two")


def check_cameras(cameras: Any, views: Any, coords: Any, queries: Any, cloud: Any) -> None:
    """Refuse cameras that do not fit the tokens; see :class:`Grid`."""
    if not isinstance(cameras, Cameras):
        what = "views without cameras" if cameras is None else f"cameras={type(cameras).__name__}"
        raise TypeError(f"{what}: nothing known of what saw the tokens; allowed: a visionpe.Cameras")
    if queries is not None or cloud is not None:
        what = "cloud" if queries is None else f"queries={queries!r}"
        raise ValueError(f"{what} with cameras: views have all their tokens as queries; allowed: one of the two")
    if views is not None:
        if not isinstance(views, Tensor) or views.dtype != torch.long:
            what = str(views.dtype) if isinstance(views, Tensor) else type(views).__name__
            raise TypeError(f"views={what}: no numbers of cameras; allowed: an int64 tensor (N,) or (B, N)")
        if coords is None or views.shape[-1] != coords.shape[-2] or views.ndim not in (1, 2):
            given = None if coords is None else tuple(coords.shape)
            raise ValueError(
                f"views={tuple(views.shape)} with coords={given}; allowed: (N,) or (B, N), with coords of N"
            )
    elif coords is not None and not is_exporting() and coords.shape[-2] % cameras.count:
        raise ValueError(
            f"coords={tuple(coords.shape)} are no equal shares of {cameras.count} cameras; allowed: a multiple of that "
            "number of tokens, or views besides"
        )


def check_finite(coords: Tensor | None) -> None:
    """Refuse NaN and infinity, but not while a graph is traced."""
    if coords is None or is_tracing() or not coords.is_floating_point():
        return
    if not coords.isfinite().all():
        raise ValueError("coords hold NaN or infinity; allowed: finite coordinates")


def check_whole(coords: Tensor | None, limits: tuple[int, ...], reader: str, offsets: bool) -> None:
    """Refuse coordinates that are not whole, or leave 0 to a limit on an axis; see :meth:`Grid.whole_positions`."""
    if coords is None or is_tracing() or not coords.numel():
        return
    check_finite(coords)
    if coords.is_floating_point() and not torch.equal(coords, coords.round()):
        raise ValueError(f"coords: {reader} reads whole coordinates, and some are not; allowed: whole numbers")
    low, high = (t.flatten(0, -2).tolist() for t in (coords.amin(-2, keepdim=True), coords.amax(-2, keepdim=True)))
    for sample_low, sample_high in zip(low, high):
        for first, last, limit in zip(sample_low, sample_high, limits):
            if (last - first if offsets else last) >= limit or (first < 0 and not offsets):
                span = f"spans of {limit} tokens" if offsets else f"0 to {limit - 1}"
                raise ValueError(f"coords: {reader} finds {first:g} to {last:g} along an axis; allowed: {span}")


class OfOnePass:
    """Mixin of what tells where the tokens of one pass stand, with a dict ``_kept``."""

    def keep(self, key: Hashable, build: Callable[[], Any]) -> Any:
        """What follows from these positions and no parameter: built once, and gone with this object.

        For irregular tokens, whose positions are those of one pass; of a full grid the encodings keep their own.
        """
        if is_tracing():
            return build()
        kept: dict[Hashable, Any] = self._kept  # type: ignore[attr-defined]
        if key not in kept:
            kept[key] = build()
        return kept[key]


@opaque
@dataclass(frozen=True)
class Grid(OfOnePass):
    """Where the tokens of one sequence stand.

    Args:
        size: Tokens per axis, slowest first: ``(height, width)`` or ``(time, height, width)``. The tokens follow
            in row-major order.
        prefix: Tokens ahead of them that stand nowhere (class and register tokens).
        window: Window per axis if attention is windowed, else None.
        coords: Explicit coordinates ``(N, axes)`` or ``(B, N, axes)`` in token units, in the order of ``size``,
            where the tokens are not a full grid (dropped patches, sparse voxels). ``size`` is then their extent.
        signals: What else is known of the spatial tokens, colour and normal, ``(N, 3 k)`` or ``(B, N, 3 k)``.
        cloud: Which cloud each token belongs to, ``(N,)``, where several share a sequence; else None.
        queries: Queries per axis where attention pools them or the keys, so that these are not the same tokens:
            ``size`` then counts the keys. Both are stretched over the finer of the two grids, in whose tokens positions
            are told. None where queries and keys are the same tokens.
        stride: Steps from query to query along each axis where some of the keys are the queries, the first one and
            every ``stride``-th from there, which stay where they are. ``queries`` then follows from it.
        cameras: Of the views where several share a sequence. ``size`` is then that of one view, and the tokens are
            those of all views in order: each stands at the place in its own image, so that coordinates repeat, and what
            reads coordinates works as in one image. (``size=(views, height, width)`` without cameras has the number of
            the view for a third axis.)
        views: Which camera saw each spatial token, ``(N,)`` or ``(B, N)``, int64, where they are given by ``coords``;
            None where the views have equal shares, in order.
        known: What the code that made the coordinates knows of them: that they are ``finite``, or ``whole`` and on the
            grid besides. What is not known is looked at once.

    Raises:
        TypeError: If ``coords`` is no tensor of numbers, ``cameras`` are none, or ``views`` is no int64 tensor.
        ValueError: If ``size`` or ``prefix`` are no such numbers, ``coords`` has another shape, ``queries`` comes with
            it or has other axes, ``stride`` is none or comes with one of the two, or ``cameras`` come with ``queries``
            or ``cloud`` or ``views`` of another number of tokens; in use, if a coordinate is NaN, infinite, or not one
            that the encoding can read.
    """

    size: tuple[int, ...]
    prefix: int = 0
    window: tuple[int, ...] | None = None
    coords: Tensor | None = None
    signals: Tensor | None = None
    cloud: Tensor | None = None
    queries: tuple[int, ...] | None = None
    stride: tuple[int, ...] | None = None
    cameras: Cameras | None = None
    views: Tensor | None = None
    known: Literal["", "finite", "whole"] = field(default="", compare=False, repr=False)
    _kept: dict[Hashable, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not is_exporting() and not torch.jit.is_tracing():  # sizes are symbols there, or tensors
            check_size(self.size, self.prefix)
            if self.queries is not None:
                check_size(self.queries, self.prefix)
        if self.coords is not None:
            check_coords(self.coords, len(self.size))
        if self.queries is not None:
            check_queries(self.queries, len(self.size), self.coords)
        if self.stride is not None:
            check_stride(self.stride, len(self.size), self.queries, self.coords)
            object.__setattr__(self, "queries", tuple((n + s - 1) // s for n, s in zip(self.size, self.stride)))
        if self.cameras is not None or self.views is not None:
            check_cameras(self.cameras, self.views, self.coords, self.queries, self.cloud)
            self._stand_in_views()

    def _stand_in_views(self) -> None:
        """Say where the tokens of all views stand, if they fill these."""
        if self.cameras is not None and self.coords is None:
            here = Grid(self.size).positions(device=self.cameras.extrinsics.device)
            object.__setattr__(self, "coords", here.repeat(self.cameras.count, 1))
            object.__setattr__(self, "known", "whole")

    @property
    def axes(self) -> int:
        return len(self.size)

    @property
    def num_spatial(self) -> int:
        """Tokens that stand somewhere."""
        return prod(self.size) if self.coords is None else self.coords.shape[-2]

    @property
    def num_tokens(self) -> int:
        return self.prefix + self.num_spatial

    @property
    def dense(self) -> bool:
        """True where the tokens fill the grid in row-major order."""
        return self.coords is None

    @property
    def finer(self) -> Grid:
        """The finer of the two grids of pooled attention, along each axis, dense; of other attention, this one."""
        if self.queries is None:
            return self
        return Grid(tuple(larger(n, m) for n, m in zip(self.queries, self.size)), self.prefix)

    def kept(self, index: Tensor) -> Grid:
        """The grid of some of the tokens of a full one, whose numbers are ``index``, ``(B, N)``."""
        views = self.views
        if self.cameras is not None and views is None:
            share = self.num_spatial // self.cameras.count
            views = torch.arange(self.cameras.count, device=index.device).repeat_interleave(share)
        coords = self.positions(device=index.device)[index]
        views = None if views is None else views[index]
        return Grid(self.size, self.prefix, coords=coords, cameras=self.cameras, views=views, known="whole")

    def of_views(self, told: Tensor) -> Tensor:
        """What is told of each camera, ``([B,] V, ...)``, for every spatial token, ``([B,] N, ...)``.

        Args:
            told: Of :attr:`cameras`; the matrices of these, with two axes behind that of the views.
        """
        count = told.shape[-3]
        if self.views is None:
            share = self.num_spatial // count
            return told.unsqueeze(-3).expand(*told.shape[:-2], share, *told.shape[-2:]).flatten(-4, -3)
        views = self.views.to(told.device)
        if told.ndim == 3 or views.ndim == 1:
            return told[views] if told.ndim == 3 else told[:, views]
        return told[torch.arange(len(told), device=told.device)[:, None], views]

    def query_and_key_positions(self, *, device: torch.device | str | None = None) -> tuple[Tensor, Tensor]:
        """Where pooled queries and keys stand, in tokens of :attr:`finer`: ``(queries, axes)`` and ``(N, axes)``.

        The token i of n stands in the middle of its share of the m finer ones, at ``(i + 1/2) m / n - 1/2``; with
        :attr:`stride`, a query on the key that it is.
        """
        if self.queries is None:
            return (self.positions(device=device),) * 2
        if self.stride is not None:
            own = Grid(self.queries).positions(device=device).unbind(-1)
            return torch.stack([p * n for p, n in zip(own, self.stride)], dim=-1), self.positions(device=device)
        both = []
        for size in (self.queries, self.size):
            places = zip(Grid(size).axis_positions(device=device), size, self.finer.size)
            # Of whole numbers alone, as in a graph for every size there are no others.
            axes = [(2 * p + 1) * m / (2 * n) - 0.5 for p, n, m in places]
            both.append(torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2))
        return both[0], both[1]

    def axis_positions(
        self, *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
    ) -> list[Tensor]:
        """The positions 0, 1, 2, ... along each axis, one tensor an axis."""
        return [torch.arange(n, device=device, dtype=dtype) for n in self.size]

    def positions(self, *, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """Coordinates of every spatial token, ``(N, axes)`` or ``(B, N, axes)``."""
        if self.coords is not None:
            if not self.known:
                self.keep("finite", lambda: check_finite(self.coords))
            return self.coords.to(device=device, dtype=dtype)
        axes = torch.meshgrid(*self.axis_positions(device=device, dtype=dtype), indexing="ij")
        return torch.stack(axes, dim=-1).flatten(0, -2)  # (N, axes)

    def whole_positions(
        self,
        reader: str,
        *,
        device: torch.device | str | None = None,
        most: int | None = None,
        offsets: bool = False,
    ) -> Tensor:
        """Coordinates as whole numbers (int64), for encodings that read no others.

        Args:
            reader: Name of the encoding, for the message.
            device: Of the result.
            most: Coordinates may be below this on every axis. Default: below the size of the axis.
            offsets: Only their differences matter, so they may start anywhere.

        Raises:
            ValueError: If a coordinate is not whole or out of range. Nothing is looked at while a graph is traced.
        """
        if self.coords is not None and self.known != "whole":
            limits = self.size if most is None else (most,) * self.axes
            self.keep(("whole", limits, offsets), lambda: check_whole(self.coords, limits, reader, offsets))
        return self.positions(device=device, dtype=torch.long)
