"""What every bias that depends on the offset between query and key shares."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor

from visionpe.attention.bias import Bias, DenseBias, OffsetBias, with_prefix
from visionpe.attention.pooled import PooledOffsetBias, pooled_shift
from visionpe.base import PositionEncoding
from visionpe.grid import Grid
from visionpe.kept import Keeps, KeptOfLayers, may_keep
from visionpe.policy.functions.positions import OFFSET_POLICIES, rescale_positions
from visionpe.precision import wide_dtype, without_autocast


def heads_first(values: Tensor) -> Tensor:
    """``(..., heads)`` to ``(heads, ...)``; axes count from the front, as the older exporter to ONNX wants them."""
    return values.movedim(values.ndim - 1, 0)


def all_offsets(
    grid: Grid, device: torch.device, dtype: torch.dtype, shifts: Sequence[float | Tensor] | None = None
) -> list[Tensor]:
    """The offsets of a full grid along each axis, shifted if need be: ``(2 n_0 - 1, 1, ...)``, and so on."""
    offsets = []
    for axis, (n, shift) in enumerate(zip(grid.size, shifts or [0] * grid.axes)):
        d = torch.arange(1 - n, n, device=device, dtype=dtype) + shift
        offsets.append(d.view([-1 if a == axis else 1 for a in range(grid.axes)]))
    return offsets


class OffsetEncoding(Keeps, PositionEncoding):
    """Base of the biases that are a function of (query - key) alone.

    A subclass says what the function is. On a full grid it is evaluated once per offset, which is linear in the
    tokens; where tokens are irregular, once per pair. Pairs that touch a prefix token have bias 0.
    """

    structure = "offset"
    takes_pooled = True
    policies: ClassVar[tuple[str, ...]] = OFFSET_POLICIES
    # Without parameters the matrix serves all layers, which is worth keeping.
    fixed: ClassVar[bool] = False
    # With parameters, what the matrices of all layers may take together for them to be kept, see `made_of`.
    kept_bytes: ClassVar[int] = 32 * 2**20
    # Whether those of all layers are the same few, which are compared once a pass.
    stacks: ClassVar[bool] = False

    @abstractmethod
    def function(self, offsets: Sequence[Tensor], grid: Grid, layer: int) -> Tensor:
        """The bias at some offsets.

        Args:
            offsets: One tensor an axis in the order of ``grid.size``, in token units; their shapes broadcast.
            grid: Where the tokens stand.
            layer: The block that asks.

        Returns:
            ``(heads, ...)``, in the dtype of the offsets.
        """

    def made_of(self, layer: int) -> Sequence[Tensor]:
        """All parameters that the bias of a layer follows from, if it follows from nothing else; by default none.

        Those of all layers, where ``stacks`` says that they are the same.

        On a CPU, in evaluation and without gradients, the matrix of a small grid is kept until one of them changes.
        """
        return ()

    def scaled(self, offsets: Sequence[Tensor], grid: Grid) -> list[Tensor]:
        """Offsets as the policy measures them: in tokens, of the trained grid, or no longer than trained ones."""
        sizes = zip(offsets, grid.size, self.grid_size)
        return [rescale_positions(d, size, trained, self.main_policy) for d, size, trained in sizes]

    def distance(self, offsets: Sequence[Tensor], grid: Grid) -> Tensor:
        """Euclidean length of offsets as the policy measures them."""
        squares = torch.zeros((), device=offsets[0].device, dtype=offsets[0].dtype)
        for d in self.scaled(offsets, grid):
            squares = squares + d.square()
        return squares.sqrt()

    def _table(self, grid: Grid, layer: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        return self._at_offsets([0] * grid.axes, grid, layer, device, dtype)

    def _at_offsets(
        self, shifts: Sequence[float | Tensor], grid: Grid, layer: int, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        """At all offsets of a full grid, each axis shifted: ``(heads, 2 n_0 - 1, 2 n_1 - 1, ...)``."""
        return self.function(all_offsets(grid, device, dtype, shifts), grid, layer)

    def _pooled(self, grid: Grid, layer: int, device: torch.device, dtype: torch.dtype) -> Bias:
        """Of queries and keys on different grids: what reads whole offsets rounds, others read between them."""
        assert grid.queries is not None
        if self.whole_coords or grid.stride is not None:  # these offsets are whole
            table = self._table(grid.finer, layer, device, dtype)
        else:
            shifts = [pooled_shift(n, m, device=device) for n, m in zip(grid.queries, grid.size)]
            table = self._at_offsets(shifts, grid.finer, layer, device, dtype)
        return PooledOffsetBias(table, grid, prefix=self._prefix_terms(layer))

    def _pairs(self, grid: Grid, layer: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        if self.whole_coords:
            grid.whole_positions(type(self).name, offsets=True)
        axes = grid.positions(device=device, dtype=dtype).unbind(-1)
        values = self.function([p[..., :, None] - p[..., None, :] for p in axes], grid, layer)  # (heads, [B,] N, N)
        values = values[None] if values.ndim == 3 else values.transpose(0, 1)
        return with_prefix(values, grid.prefix, grid.prefix, self._prefix_terms(layer))

    def _prefix_terms(self, layer: int) -> Tensor | None:
        """The bias of pairs that touch a prefix token, ``(heads, 3)``, see :func:`with_prefix`; None for 0."""
        return None

    def new_store(self) -> Any:
        return KeptOfLayers() if self.stacks else super().new_store()

    def bias(self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0) -> Bias:
        told = (self.policy_terms, self.grid_size, q.dtype)
        if self.stacks:
            kept: Bias | None = self.kept.in_pass(grid, layer, told, self.made_of(layer))
            if kept is not None:
                return kept
        self.check_axes(grid)
        sources = self.made_of(layer) if grid.dense and not (self.training or self.fixed) else ()
        if not sources or not may_keep(sources) or self._nbytes(q, grid) > self.kept_bytes:
            return self._wide_bias(q, grid, layer)

        def build() -> Bias:
            bias = DenseBias(self._wide_bias(q, grid, layer).matrix(q.dtype))
            bias.kept = True
            return bias

        if self.stacks:
            bias: Bias = self.kept.get(grid, layer, told, sources, build)
        else:
            bias = self.kept.get(layer, (grid.size, grid.prefix, grid.queries, grid.stride, told), sources, build)
        return bias

    def _nbytes(self, q: Tensor, grid: Grid) -> int:
        """What the matrices of all layers take."""
        queries = prod(grid.queries or grid.size) + grid.prefix
        return self.depth * self.num_heads * queries * grid.num_tokens * q.element_size()

    def _wide_bias(self, q: Tensor, grid: Grid, layer: int) -> Bias:
        with without_autocast(q):  # distances and small networks keep float32
            return self._bias(q, grid, layer)

    def _bias(self, q: Tensor, grid: Grid, layer: int) -> Bias:
        dtype = wide_dtype(q)
        if grid.queries is not None:
            return self._pooled(grid, layer, q.device, dtype)
        if not self.fixed:
            if not grid.dense:
                return DenseBias(self._pairs(grid, layer, q.device, dtype))
            return OffsetBias(self._table(grid, layer, q.device, dtype), grid, prefix=self._prefix_terms(layer))
        key = (grid.size, self.policy, self.grid_size, q.device, dtype)
        if not grid.dense:
            return DenseBias(grid.keep((self, *key), lambda: self._pairs(grid, layer, q.device, dtype)))
        table = self.cache.get(key, lambda: self._table(grid, layer, q.device, dtype))
        return OffsetBias(table, grid, cache=self.cache, key=(self.policy, self.grid_size))
