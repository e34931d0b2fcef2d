"""A stage of RMT: attention in the whole map, or inside each row and then, on that result, inside each column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from visionpe.attention.axial import from_lines, lines_of
from visionpe.backbones.shared.block import WindowAttention, WindowBlock
from visionpe.backbones.shared.encoded import encoded_attention
from visionpe.backbones.shared.partition import Partition
from visionpe.backbones.shared.pyramid import Stage
from visionpe.backbones.shared.stage_encoding import WindowKind
from visionpe.backbones.shared.windows import Pair, WholeMap
from visionpe.base import PositionEncoding
from visionpe.encodings.wrappers.base import innermost
from visionpe.grid import Grid
from visionpe.registry import Spec, parse_spec
from visionpe.tracing import map_size

LINES = ("rows", "columns")


def of_stage(spec: Spec, init_value: float, decay_range: float) -> list[dict[str, Any]]:
    """A specification whose Manhattan decays are those of a stage, where it does not say what they are."""
    filled = []
    for name, options in parse_spec(spec):
        if name == "manhattan":
            options = {"init_value": init_value, "decay_range": decay_range, **options}
        elif "over" in options:
            options = options | {"over": of_stage(options["over"], init_value, decay_range)}
        filled.append({"name": name, **options})
    return filled


def reads_pairs(part: PositionEncoding) -> bool:
    """Whether an encoding acts on pairs of tokens, which are those of a row or a column; others act on each token."""
    part = innermost(part)
    return "bias" in part.sites() or ("mix" in part.sites() and not part.reads_neighbours)


def acts_on_tokens(part: PositionEncoding) -> bool:
    return not reads_pairs(part)


class LinesAttention(WindowAttention):
    """Self-attention in the whole map, or along its rows and then, on that result, along its columns.

    Queries and keys are the same both times. What an encoding does to each token (turning queries and keys, a
    convolution of the values) is done once, on the map; what it does to pairs, in the rows and again in the columns.
    """

    def forward(self, x: Tensor, partitions: Sequence[Partition]) -> Tensor:
        """Attend: ``(B, height, width, dim)`` to the same.

        Args:
            x: The map.
            partitions: The whole map alone, or it, its rows and its columns.
        """
        whole, *lines = partitions
        if not lines:
            return super().forward(x, partitions)
        tokens = x.flatten(1, 2)
        q, k, v = self.projections(tokens).permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, N, head_dim)
        q, k = content = self.compared(q, k)
        encoding, grid, layer, factor = whole.encoding, whole.grid, whole.layer, 1.0
        if encoding.acts_on_logits():
            q, k = encoding.rotate(q, k, grid, layer=layer, tokens=tokens)
            rule = encoding.logit_rule(grid)
            factor = 1.0 if rule is None else rule.factor
        out = encoding.value(v, grid, layer=layer)
        for axis, cut in zip((1, 0), lines):
            out = self._along(axis, cut, map_size(x), (q, k, out), content, x, factor)
        out = encoding.mix(encoding.output(out, grid, layer=layer), v, grid, layer=layer)
        return self.projected(out.transpose(1, 2).flatten(2).unflatten(1, map_size(x)), self.gating(x))

    def _along(
        self,
        axis: int,
        cut: Partition,
        size: Pair,
        qkv: tuple[Tensor, Tensor, Tensor],
        content: tuple[Tensor, Tensor],
        x: Tensor,
        factor: float,
    ) -> Tensor:
        """Attention inside the lines along an axis, ``(B, heads, N, head_dim)``."""
        q, k, v = (lines_of(t, size, axis) for t in qkv)  # (B * lines, heads, n, head_dim)
        turned = qkv[0] is not content[0]
        attended = encoded_attention(
            q,
            k,
            v,
            cut.encoding,
            cut.grid,
            attended=self.attended,
            plain=self,
            layer=cut.layer,
            scale=content[0].shape[-1] ** -0.5 if q.shape[-1] != content[0].shape[-1] else None,
            tokens=(x if axis else x.transpose(1, 2)).flatten(0, 1) if cut.encoding.reads_tokens else None,
            content=(lines_of(content[0], size, axis), lines_of(content[1], size, axis))
            if turned and cut.encoding.acts("bias")
            else None,
            factor=factor,
        )
        return from_lines(attended, x.shape[0], size, axis)


class RMTStage(Stage):
    """Blocks that attend in the whole map, or in its rows and then its columns.

    Args:
        downsample, blocks, encoding: See :class:`~visionpe.backbones.shared.pyramid.Stage`.
        grid_size: Height and width of the map at the trained size, tokens.
        decomposed: Rows and columns.
    """

    windows_grow = False  # they are the map

    def __init__(
        self,
        downsample: nn.Module,
        blocks: Sequence[WindowBlock],
        encoding: nn.Module,
        *,
        grid_size: Pair,
        decomposed: bool,
    ) -> None:
        super().__init__(downsample, blocks, encoding)
        self.grid_size, self.decomposed = grid_size, decomposed

    def windows(self, size: Pair) -> dict[str, Pair]:
        """Within what tokens of a map of this size attend, tokens."""
        return {"whole": size, "rows": (1, size[1]), "columns": (size[0], 1)} if self.decomposed else {"whole": size}

    def kinds(self, dim: int, num_heads: int) -> dict[str, WindowKind]:
        """What encodings of the stage are built for."""
        takes = {"whole": acts_on_tokens, **dict.fromkeys(LINES, reads_pairs)} if self.decomposed else {}
        return {
            kind: WindowKind(dim, num_heads, len(self.blocks), window, takes=takes.get(kind, lambda part: True))
            for kind, window in self.windows(self.grid_size).items()
        }

    def partitions(self, size: Pair, device: torch.device) -> list[list[Partition]]:
        inside: Any = self.pos_encoding.inside
        whole = WholeMap(size, size)
        ways = [(inside[kind], Grid(size=window)) for kind, window in self.windows(size).items()]
        return [
            [Partition(whole, encoding, grid, layer=layer) for encoding, grid in ways]
            for layer in range(len(self.blocks))
        ]
