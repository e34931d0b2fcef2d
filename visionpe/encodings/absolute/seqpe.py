"""SeqPE: a small transformer reads the digits of each coordinate."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionpe.attention.bias import Bias, LowRankBias
from visionpe.base import PositionEncoding
from visionpe.checks import check_choice, check_count, check_flag, check_number
from visionpe.encodings.absolute.digit_transformer import DigitBlock, decimal_digits
from visionpe.grid import Grid
from visionpe.memo import LayerMemo
from visionpe.precision import WideLayerNorm, WideLinear, wide_dtype, without_autocast
from visionpe.ranges import MAX_PREFIX, check_width
from visionpe.registry import register_encoding
from visionpe.tracing import is_exporting

# Site -> where it acts in a model.
SITES = {"add": "add", "logits": "bias", "qk_mul": "rotate", "qk_add": "rotate"}


@register_encoding("seqpe")
class SequentialPositionEncoding(PositionEncoding):
    """A small transformer reads the decimal digits of the coordinates and gives the vector of the token.

    Source: "SeqPE: Transformer with Sequential Position Encoding", section 3.1. Every axis has ``max_digits`` digits,
    rows first; to the embedding of a digit come those of its slot in the sequence and of its axis, and a class token at
    the end, without slot, gives the result. A larger grid has larger numbers, whose digits are all known.

    Site ``add`` adds the vector to the token; prefix tokens get none. Site ``logits`` makes a query and a key part of
    it in every layer, one for all heads, and adds their scaled product to the logits (``attn_scalar`` in the paper's
    code), which is exactly of low rank. Sites ``qk_mul`` and ``qk_add`` multiply queries and keys by those parts, or
    add them to these (``attn_mul``, ``attn_add``). There the class token has a learned vector of its own, as published;
    further prefix tokens stay as they are.

    Args:
        site: ``add``, ``logits``, ``qk_mul`` or ``qk_add``.
        encoder_dim: Width of the encoder.
        encoder_heads: Its attention heads.
        encoder_layers: Its blocks.
        max_digits: Digits of a coordinate, 1 to 18; a side may have ``10 ** max_digits`` tokens.
        causal: Digits see only what stands before them.
        final_norm: Normalise the result before the last projection.
        mask_padding: Hide the zeros ahead of a number.
        temperature: Divides the result.
        per_head: A query and a key part for every head, where there are any.
        pe_dim: Width of the vector that they are made of; default ``head_dim``, with ``per_head`` that of the tokens.
        prefix_slots: Prefix tokens with a learned vector, but for ``add``; none where the model has no prefix tokens.
        context: See :class:`~visionpe.base.PositionEncoding`. There is no policy: positions are never rescaled.

    Raises:
        ValueError: If an option is out of range; in use, if a side has more than ``10 ** max_digits`` tokens or the
            tokens stand on another number of axes.
    """

    source = "SeqPE, arXiv 2506.13277"
    structure = "low rank"
    whole_coords = True
    by_block = ("qk",)
    # Vectors for the one block that is left, where `one_block` made this.
    made: Tensor | None = None

    def __init__(
        self,
        *,
        site: Literal["add", "logits", "qk_mul", "qk_add"] = "add",
        encoder_dim: int = 64,
        encoder_heads: int = 4,
        encoder_layers: int = 2,
        max_digits: int = 4,
        causal: bool = True,
        final_norm: bool = True,
        mask_padding: bool = False,
        temperature: float = 1.0,
        per_head: bool = False,
        pe_dim: int | None = None,
        prefix_slots: int = 1,
        **context: Any,
    ) -> None:
        super().__init__(**context)
        check_choice("site", site, tuple(SITES))
        # A whole number of int64 has 18 digits.
        ranges = {"encoder_dim": 4096, "encoder_heads": 4096, "encoder_layers": 100, "max_digits": 18}
        given = (encoder_dim, encoder_heads, encoder_layers, max_digits)
        for (name, most), count in zip(ranges.items(), given):
            check_count(name, count, 1, most)
        if encoder_dim % encoder_heads:
            raise ValueError(f"encoder_dim={encoder_dim} is no multiple of encoder_heads={encoder_heads}")
        if pe_dim is not None:
            check_width("pe_dim", pe_dim)
        if site == "add" and pe_dim not in (None, self.dim):
            raise ValueError(f"pe_dim={pe_dim} with site='add'; allowed: {self.dim}, the width of the tokens")
        check_number("temperature", temperature, 1e-6, 1e6)
        check_count("prefix_slots", prefix_slots, 0, MAX_PREFIX)
        flags = {"causal": causal, "final_norm": final_norm, "mask_padding": mask_padding, "per_head": per_head}
        for name, flag in flags.items():
            check_flag(name, flag)
        if site == "add" and per_head:
            raise ValueError(
                "per_head=True with site='add', where vectors join the tokens of all heads; allowed: False"
            )
        self.sites = partial(tuple, (SITES[site],))  # type: ignore[method-assign]
        if site != "logits":
            self.structure = "none"
        self.site, self.max_digits, self.causal, self.mask_padding = site, max_digits, causal, mask_padding
        self.temperature, self.axes = temperature, len(self.grid_size)
        self.encoder_heads, self.per_head = encoder_heads, per_head
        self.width = self.dim if per_head or site == "add" else self.head_dim
        out = pe_dim or self.width
        self.digit_table = nn.Parameter(torch.empty(10, encoder_dim, **self.factory))
        self.slot_table = nn.Parameter(torch.empty(max_digits * self.axes, encoder_dim, **self.factory))
        self.axis_table = nn.Parameter(torch.empty(self.axes, encoder_dim, **self.factory))
        self.class_table = nn.Parameter(torch.empty(encoder_dim, **self.factory))
        self.blocks = nn.ModuleList(
            DigitBlock(encoder_dim, encoder_heads, **self.factory) for _ in range(encoder_layers)
        )
        self.norm = WideLayerNorm(encoder_dim, **self.factory) if final_norm else None
        self.out = WideLinear(encoder_dim, out, **self.factory)
        self.prefix_table, self.qk, self.memo = None, None, LayerMemo()
        if site != "add":
            self.prefix_table = nn.Parameter(torch.empty(prefix_slots, out, **self.factory)) if prefix_slots else None
            self.qk = nn.ModuleList(WideLinear(out, 2 * self.width, **self.factory) for _ in range(self.depth))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith("_table"):
                nn.init.normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.LayerNorm):
                module.reset_parameters()

    def no_weight_decay(self) -> set[str]:
        return {name for name, _ in self.named_parameters() if name.endswith("_table")}

    def encode(self, positions: Tensor, dtype: torch.dtype) -> Tensor:
        """Vectors of positions: integers ``(n, axes)`` to ``(n, dim or pe_dim)``."""
        digits = decimal_digits(positions, self.max_digits)  # (n, axes, max_digits)
        slots = self.slot_table.to(dtype).unflatten(0, (self.axes, self.max_digits))
        x = self.digit_table.to(dtype)[digits] + slots + self.axis_table.to(dtype)[:, None]
        last = self.class_table.to(dtype).expand(x.shape[0], 1, -1)
        x = torch.cat((x.flatten(1, 2), last), dim=1)  # (n, axes * max_digits + 1, encoder_dim)
        mask = self._mask(digits, dtype)
        for block in self.blocks:
            x = block(x, mask)
        x = x[:, -1] if self.norm is None else self.norm(x[:, -1])
        return self.out(x) / self.temperature

    def _mask(self, digits: Tensor, dtype: torch.dtype) -> Tensor | None:
        """What the digits may not see, additive, ``(n or 1, 1, length, length)``."""
        length = self.axes * self.max_digits + 1
        hidden = torch.zeros(1, 1, length, length, device=digits.device, dtype=torch.bool)
        if self.causal:
            hidden = hidden | hidden.new_ones(length, length).triu(1)
        if self.mask_padding:
            ahead = digits.cumsum(-1) == 0
            ahead = ahead & (torch.arange(self.max_digits, device=digits.device) < self.max_digits - 1)  # 0 is a number
            hidden = hidden | F.pad(ahead.flatten(1), (0, 1))[:, None, None]
        if not (self.causal or self.mask_padding):
            return None
        # Finite, so that a digit from which everything is hidden gives no NaN.
        return torch.zeros_like(hidden, dtype=dtype).masked_fill(hidden, torch.finfo(dtype).min)

    def _vectors(self, grid: Grid, x: Tensor) -> Tensor:
        """Vectors of the spatial tokens, ``([B,] N_spatial, dim or pe_dim)``, in at least float32."""
        self.check_axes(grid)
        # The graph of an export serves every size, so it must not branch on one.
        if not is_exporting() and max(grid.size) > 10**self.max_digits:
            raise ValueError(f"max_digits={self.max_digits} is too few for {max(grid.size)} tokens a side")
        positions = grid.whole_positions(self.name, device=x.device, most=10**self.max_digits)
        with without_autocast(x):
            vectors = self.encode(positions.flatten(0, -2), wide_dtype(x))
        return vectors.view(*positions.shape[:-1], -1)

    def add(self, x: Tensor, grid: Grid) -> Tensor:
        return x + self._vectors(grid, x).to(x.dtype) if self.site == "add" else x

    def of_block(self, x: Tensor, grid: Grid, *, layer: int) -> dict[str, Any]:
        if self.site == "add":
            return {}
        before = self.memo.get(grid, layer, key=(x.device, x.dtype)) if layer else None
        vectors = self._vectors(grid, x) if before is None else before
        self.memo.put(grid, layer, vectors, key=(x.device, x.dtype), last=layer == self.depth - 1)
        return {"made": vectors}

    def _parts(self, x: Tensor, grid: Grid, layer: int, *, blank: float) -> tuple[Tensor, Tensor]:
        """The query and the key part of every token in a layer, ``(1 or B, 1 or heads, N, head_dim)``.

        Prefix tokens without a vector of their own have ``blank``.
        """
        assert self.qk is not None
        vectors = self.of_block(x, grid, layer=layer)["made"] if self.made is None else self.made
        vectors = vectors if vectors.ndim == 3 else vectors[None]  # (1 or B, N_spatial, pe_dim)
        slots = 0
        if self.prefix_table is not None:
            slots = min(grid.prefix, len(self.prefix_table))
            own = self.prefix_table[:slots].to(vectors.dtype).expand(vectors.shape[0], -1, -1)
            vectors = torch.cat((own, vectors), dim=1)
        with without_autocast(x):
            both = self.qk[layer](vectors)
        rest = both.new_full((both.shape[0], grid.prefix - slots, both.shape[-1]), blank)  # the further prefix tokens
        both = torch.cat((both[:, :slots], rest, both[:, slots:]), dim=1)
        both = both.unflatten(-1, (2, -1, self.head_dim)).permute(2, 0, 3, 1, 4)  # (2, 1 or B, 1 or heads, N, head_dim)
        return both[0], both[1]

    def bias(self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0) -> Bias | None:
        if self.site != "logits":
            return None
        left, right = self._parts(q, grid, layer, blank=0.0)
        return LowRankBias(left * self.head_dim**-0.5, right)

    def rotate(self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0) -> tuple[Tensor, Tensor]:
        if self.site not in ("qk_mul", "qk_add"):
            return q, k
        multiplied = self.site == "qk_mul"
        parts = self._parts(q, grid, layer, blank=float(multiplied))
        ours, theirs = (x * part if multiplied else x + part for x, part in zip((q, k), parts))
        return ours.to(q.dtype), theirs.to(k.dtype)

    def extra_repr(self) -> str:
        return f"site={self.site!r}, max_digits={self.max_digits}"
