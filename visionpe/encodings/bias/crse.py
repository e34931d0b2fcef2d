"""cRSE: contextual relative signal encoding, on queries, keys and values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from visionpe.attention.dispatch import AttentionWeights
from visionpe.attention.signals.bias import SignalBias, SignalTables
from visionpe.attention.signals.picks import LinePicks, PairPicks, Picks
from visionpe.attention.signals.rows import SignalRows
from visionpe.base import PositionEncoding
from visionpe.checks import check_number, check_text
from visionpe.grid import Grid
from visionpe.policy.functions import POSITION_POLICIES, rescale_positions
from visionpe.precision import without_autocast
from visionpe.ranges import check_init_std, check_table, draw_table
from visionpe.registry import register_encoding
from visionpe.tracing import is_exporting

# Values (1 or B, N, axes), rows of one unit, rows of the table.
Signal: TypeAlias = tuple[Tensor, float, int]
# Where colour and normal stand among the signals of a grid.
COLUMNS = {"RGB": slice(0, 3), "NORM": slice(3, 6)}
# Colours and normals span two units each way, and are told apart twice as finely as positions.
SPAN, FINER = 2, 2
# Rows: above the rounding of rescaled coordinates in float32, below a step between two of them.
NUDGE = 1e-4


@register_encoding("crse")
class ContextualRelativeSignalEncoding(PositionEncoding):
    """Every difference of two tokens in a signal (position, colour, normal) picks a vector, axis by axis.

    Source: Swin3D, arXiv 2304.06906, section 3.2, eq. 5 to 7: ``logit = q k + q sum Tq[row] + k sum Tk[row]`` with q
    scaled and the last term not, ``out = sum of weight (v + sum Tv[row])``. The row of a pair on one axis is
    ``floor(m s_i - m s_j + L / 2)``; a difference beyond the table takes its first or last row. Positions are in
    tokens (cells), with ``m = quant_size`` rows each; colours and normals in -1..1 have ``2 quant_size``.
    Pairs that touch a prefix token have no signals.

    ``query_xyz_table``, ``key_xyz_table`` and ``value_xyz_table`` are ``(depth, axes, L, heads, head_dim)`` with
    ``L = 2 window quant_size``; those of ``rgb`` and ``norm`` have three axes and ``L = 8 quant_size``.

    Args:
        signals: Any of XYZ, RGB and NORM, joined by ``_``. The last two read the signals of the grid, colour in columns
            0 to 2, normal in 3 to 5.
        quant_size: Rows for a step of one token.
        init_std: Standard deviation of the initial tables.
        context: See :class:`~visionpe.base.PositionEncoding`; the longest side of ``grid_size`` is the window. Policy
            ``extrapolate`` takes positions in tokens, as in the paper; ``interpolate`` in tokens of the trained grid.

    Raises:
        ValueError: If ``signals`` is unknown or ``quant_size`` no positive whole number; in use, if the grid lacks a
            signal.
    """

    source = "Swin3D, arXiv 2304.06906"
    irregular = True
    stacked = (("*_table", 0),)
    structure = "signals"
    policies = POSITION_POLICIES
    query_xyz_table: nn.Parameter

    def __init__(self, *, signals: str = "XYZ", quant_size: int = 4, init_std: float = 0.02, **context: Any) -> None:
        super().__init__(**context)
        self.signals = parse_signals(signals)
        if check_number("quant_size", quant_size, None, 1000) < 1 or quant_size % 1:
            raise ValueError(f"quant_size={quant_size} must be a positive whole number: rows for a step of one token")
        self.quant_size, self.init_std = int(quant_size), check_init_std(init_std)
        for signal in self.signals:
            axes, length = len(self.grid_size), 2 * max(self.grid_size) * self.quant_size
            if signal != "XYZ":
                axes, length = 3, 2 * SPAN * FINER * self.quant_size
            for of in ("query", "key", "value"):
                shape = (self.depth, axes, length, self.num_heads, self.head_dim)
                check_table("grid_size" if signal == "XYZ" else "quant_size", self.grid_size, *shape)
                table = torch.empty(shape, **self.factory)
                self.register_parameter(f"{of}_{signal.lower()}_table", nn.Parameter(table))
        self.resized_on_load = tuple(name for name, _ in self.named_parameters() if "_xyz_" in name)  # type: ignore[misc]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for table in self.parameters():
            draw_table(table, self.init_std)

    def set_input_grid(self, grid_size: Sequence[int]) -> None:
        for name in self.resized_on_load:
            table = getattr(self, name)
            resized = nn.Parameter(
                _fit(table.detach(), 2 * max(grid_size) * self.quant_size).clone(), table.requires_grad
            )
            setattr(self, name, resized)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name in self.resized_on_load:
            if (table := state_dict.get(prefix + name)) is not None and table.ndim == 5:
                state_dict[prefix + name] = _fit(table, getattr(self, name).shape[2])
        super()._load_from_state_dict(state_dict, prefix, *args)

    def tables(self, layer: int) -> SignalTables:
        """The tables of one layer, heads ahead of rows."""
        names = [[f"{of}_{signal.lower()}_table" for signal in self.signals] for of in ("query", "key", "value")]
        return SignalTables(*([getattr(self, name)[layer].transpose(1, 2) for name in group] for group in names))

    def _others(self, grid: Grid) -> Iterator[Signal]:
        """Colour and normal of the tokens of a grid, as far as they are signals."""
        for name in self.signals:
            if (columns := COLUMNS.get(name)) is None:
                continue
            given = 0 if grid.signals is None else grid.signals.shape[-1]
            if grid.signals is None or given < columns.stop:
                raise ValueError(
                    f"signals={'_'.join(self.signals)!r} reads columns {columns.start} to {columns.stop - 1} of the "
                    f"grid's signals (colour, then normal); it has {given}"
                )
            values = grid.signals[..., columns]
            length = 2 * SPAN * FINER * self.quant_size
            yield (values if values.ndim == 3 else values[None]), FINER * self.quant_size, length

    def _rescaled(self, values: Tensor, axis: int, grid: Grid) -> Tensor:
        """Positions or offsets along an axis, as the policy scales them, in the unit of rows."""
        values = values * self.quant_size  # first: whole numbers stay whole
        return rescale_positions(values, grid.size[axis], self.grid_size[axis], self.main_policy)

    def _lines(self, grid: Grid, device: torch.device, length: int) -> list[Picks]:
        """Where the grid is full: rows of the offsets along each axis."""
        offsets = [torch.arange(1 - n, n, device=device, dtype=torch.float32) for n in grid.size]
        return [LinePicks(self._rescaled(o, axis, grid), axis, grid.size, length) for axis, o in enumerate(offsets)]

    def _places(self, grid: Grid, device: torch.device) -> Tensor:
        """Explicit coordinates in the unit of rows, ``(1 or B, N, axes)``."""
        assert grid.coords is not None
        wide = torch.promote_types(grid.coords.dtype, torch.float32)
        axes = grid.positions(device=device, dtype=wide).unbind(-1)
        places = torch.stack([self._rescaled(p, axis, grid) for axis, p in enumerate(axes)], dim=-1)
        return places if places.ndim == 3 else places[None]

    def bias(self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0) -> SignalBias:
        self.check_axes(grid)
        with without_autocast(q):
            others = list(self._others(grid))
            picks: list[list[Picks]] = []
            if "XYZ" in self.signals:
                length = self.query_xyz_table.shape[2]
                if grid.dense:
                    picks.append(self._lines(grid, q.device, length))
                else:
                    others.insert(0, (self._places(grid, q.device), 1, length))
            plain = self.main_policy is None or self.main_policy.name == "extrapolate"
            nudge = 0.0 if plain else NUDGE
            picks += [[PairPicks(m * axis, n, nudge) for axis in values.unbind(-1)] for values, m, n in others]
        shared = None
        if not (grid.dense or grid.prefix):  # windows of voxels: their rows are made once for all blocks
            options = tuple((m, n) for _, m, n in others)
            key = ("crse", self.signals, options, self.policy, self.grid_size, len(q))
            every = [(values.expand(len(q), -1, -1), m, n) for values, m, n in others]
            shared = partial(grid.keep, key, partial(SignalRows.of_signals, every, nudge))
        scaled = q * self.head_dim**-0.5
        return SignalBias(scaled, k, self.tables(layer), picks, prefix=grid.prefix, shared=shared)

    def mix(
        self, attended: Tensor, v: Tensor, grid: Grid, *, layer: int = 0, weights: AttentionWeights | None = None
    ) -> Tensor:
        own = [bias for bias in (weights.biases if weights else ()) if isinstance(bias, SignalBias)]
        if weights is None or not own:
            raise ValueError("weights=None: crse has tables for the values and needs the weights of attention")
        (bias,) = own
        if bias.values_are_in:
            return attended
        whole = is_exporting()  # an exported graph cannot be cut into a number of chunks
        chunks = [(0, grid.num_tokens)] if whole else weights.chunks()
        with without_autocast(attended):
            wide = torch.promote_types(attended.dtype, torch.float32)
            weights = replace(weights, q=weights.q.to(wide), k=weights.k.to(wide))
            terms = [bias.of_values(weights.rows(*chunk), *chunk) for chunk in chunks]
        return attended + torch.cat(terms, dim=-2).to(attended.dtype)

    def extra_repr(self) -> str:
        return f"signals={'_'.join(self.signals)!r}, quant_size={self.quant_size}, {super().extra_repr()}"


def _fit(table: Tensor, length: int) -> Tensor:
    """Rows ``(depth, axes, L, heads, head_dim)`` for a larger or smaller window, with the same row for a difference.

    What the table does not reach takes its first or last row, as a larger difference does anyway.
    """
    rows = torch.arange(length, device=table.device) - length // 2 + table.shape[2] // 2
    return table[:, :, rows.clamp(0, table.shape[2] - 1)]


def parse_signals(signals: str) -> tuple[str, ...]:
    """``"XYZ_RGB"`` to ``("XYZ", "RGB")``, always in this order.

    Raises:
        ValueError: If a name is unknown, given twice, or there is none.
    """
    known = ("XYZ", *COLUMNS)
    check_text("signals", signals, f"any of {', '.join(known)}, joined by '_'")
    given = signals.upper().split("_")
    if len(set(given)) < len(given) or not set(given) <= set(known):
        raise ValueError(f"signals={signals!r}; allowed: any of {', '.join(known)}, each once, joined by '_'")
    return tuple(name for name in known if name in given)
