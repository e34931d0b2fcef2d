"""TAPE: rotary positions that go from block to block beside the tokens, and change with what these say."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionpe.encodings.rotary.pairs import rotate_pairs
from visionpe.encodings.rotary.rope_axial import AxialRoPE
from visionpe.grid import Grid
from visionpe.memo import Carried
from visionpe.precision import WideLinear, without_autocast
from visionpe.ranges import check_width
from visionpe.registry import register_encoding


class AttendedPositions(nn.Module):
    """What tokens attend to moves positions ``(B, heads, N, ...)``: of each head those attended to, times a factor.

    Args:
        heads: Of attention.
        factory: ``device`` and ``dtype``.
    """

    def __init__(self, heads: int, **factory: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, **factory))

    def reset_parameters(self) -> None:
        """Positions stay at first."""
        nn.init.zeros_(self.weight)

    def forward(self, places: Tensor, attended: Tensor) -> Tensor:
        """Positions, and those attended to in the same shape."""
        return torch.addcmul(places, self.weight.to(places.dtype)[:, None, None, None], attended)


class ToldPositions(nn.Module):
    """What tokens say moves positions ``(B, heads, N, ...)``: heads mix, and the plane of a pair is left alone.

    Args:
        dim: Width of the tokens.
        heads: Of attention.
        hidden: Channels that the heads are taken to, where tokens weigh them.
        factory: ``device`` and ``dtype``.

    Attributes:
        gate: From tokens to the weights of the channels.
        up, down: From heads to channels ``(hidden, heads)``, and back ``(heads, hidden)``.
    """

    def __init__(self, dim: int, heads: int, hidden: int, **factory: Any) -> None:
        super().__init__()
        self.gate = WideLinear(dim, hidden, bias=False, **factory)
        self.up = nn.Parameter(torch.empty(hidden, heads, **factory))
        self.down = nn.Parameter(torch.empty(heads, hidden, **factory))

    def reset_parameters(self) -> None:
        """Positions stay at first."""
        nn.init.zeros_(self.up)
        for weight in (self.gate.weight, self.down):
            nn.init.trunc_normal_(weight, std=0.02)

    def forward(self, places: Tensor, tokens: Tensor) -> Tensor:
        """Positions, and tokens ``(B, N, dim)``."""
        dtype = places.dtype
        weights = F.silu(self.gate(tokens.to(dtype)))  # (B, N, hidden)
        # The product of the three for each token is smaller than its positions in all channels.
        each = self.down.T[:, :, None] * self.up[:, None]  # (hidden, heads, heads)
        mixing = (weights @ each.flatten(1).to(dtype)).unflatten(-1, each.shape[1:])  # (B, N, heads, heads)
        moved = mixing @ places.transpose(1, 2).flatten(-2)  # (B, N, heads, head_dim)
        return places + moved.transpose(1, 2).unflatten(-1, places.shape[-2:])


@register_encoding("tape")
class ContextualRoPE(AxialRoPE):
    """Rotations that start as those of ``rope_axial``; every block moves them by what tokens attend to and say.

    Source: "Rethinking Addressing in Language Models via Contextualized Equivariant Positional Encoding" (TAPE), arXiv
    2501.00712, as its published code has it (``adape``), in which a pair of channels of a head has cosine and sine as a
    vector e of its own for every token. Queries and keys of a block are turned by e, which need not keep its length.
    Then, of each head h: ``e_h += a_h * sum_j A_hj e_hj``, with the weights A of its attention; and, across heads,
    ``e += down (silu(gate(m)) * (up e))`` with what the MLP of the block gives, m. Factors a (in the code the rows of a
    matrix, added up) and ``up`` start at zero, so that the model starts as RoPE.

    No step tells a direction in the plane of a pair from others: to turn all e of a pair by one angle changes no
    output. So positions have no origin, as in RoPE: prefix tokens, which start unturned, have the only one.
    Positions are at least float32, attended to in the dtype of the values. The last block has none to hand on.

    The sites called without ``carried`` are those of ``rope_axial``, as of a block that none stands before or behind.

    Args:
        hidden: Channels that tokens weigh; default 4 for each head, as published. 1 to 65536.
        context: See :class:`~visionpe.encodings.rotary.rope_axial.AxialRoPE`. Policies are of the positions that the
            first block is given.

    Raises:
        ValueError: If ``hidden`` lies outside its range; in use, if a block but the first is carried no positions.
    """

    source = "TAPE, arXiv 2501.00712, on every axis"
    carries = True
    irregular = False
    takes_pooled = False
    by_block = ("by_attention", "by_tokens")

    def __init__(self, *, hidden: int | None = None, **context: Any) -> None:
        super().__init__(**context)
        self.hidden = 4 * self.num_heads if hidden is None else check_width("hidden", hidden)
        moves = range(self.depth - 1)
        self.by_attention = nn.ModuleList(AttendedPositions(self.num_heads, **self.factory) for _ in moves)
        self.by_tokens = nn.ModuleList(
            ToldPositions(self.dim, self.num_heads, self.hidden, **self.factory) for _ in moves
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for update in (*self.by_attention, *self.by_tokens):
            update.reset_parameters()

    def keep_blocks(self, count: int) -> None:
        super().keep_blocks(count - 1)  # the last one left has nothing to hand on

    def _hands_on(self, layer: int) -> bool:
        return layer < len(self.by_attention)

    def _places(self, x: Tensor, grid: Grid, layer: int, carried: Carried | None) -> Tensor:
        """Cosine and sine for the queries and keys of a block, as :func:`rotate_pairs` takes them."""
        places = None if carried is None else carried.get(grid)
        if places is not None:  # some libraries round what goes into a block to the dtype of its parameters
            return places.to(torch.promote_types(places.dtype, torch.float32))
        if carried is not None and layer:
            raise ValueError(
                f"tape: block {layer} is given no positions of the block before it; allowed: those that it gave"
            )
        places = self.rotation(grid, layer=layer, device=x.device, dtype=x.dtype)
        if carried is not None:
            carried.put(grid, places)
        return places

    def rotate(
        self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0, carried: Carried | None = None
    ) -> tuple[Tensor, Tensor]:
        with without_autocast(q):
            places = self._places(q, grid, layer, carried)
            axes = len(self.grid_size)
            return rotate_pairs(q, places, self.layout, axes), rotate_pairs(k, places, self.layout, axes)

    def value(self, v: Tensor, grid: Grid, *, layer: int = 0, carried: Carried | None = None) -> Tensor:
        if carried is None or not self._hands_on(layer):
            return v
        places = self._places(v, grid, layer, carried).flatten(-2)
        return torch.cat((v, places.expand(*v.shape[:-1], -1).to(v.dtype)), dim=-1)

    def output(self, attended: Tensor, grid: Grid, *, layer: int = 0, carried: Carried | None = None) -> Tensor:
        if carried is None or not self._hands_on(layer):
            return attended
        places = self._places(attended, grid, layer, carried)
        width = places.shape[-2:].numel()
        own, moved = attended[..., :-width], attended[..., -width:]
        with without_autocast(attended):
            moved = moved.to(places.dtype).unflatten(-1, places.shape[-2:])
            carried.put(grid, self.by_attention[layer](places, moved))
        return own

    def carry(self, fed: Tensor, grid: Grid, carried: Carried, *, layer: int = 0) -> None:
        if not self._hands_on(layer):
            return
        with without_autocast(fed):
            carried.put(grid, self.by_tokens[layer](self._places(fed, grid, layer, carried), fed))

    def extra_repr(self) -> str:
        return f"hidden={self.hidden}, {super().extra_repr()}"
