"""Decomposed relative position: the query meets one table an axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionpe.attention.bias import AxesBias, LowRankBias
from visionpe.encodings.bias.axes import AxisVectors
from visionpe.grid import Grid
from visionpe.policy.functions import READ_POLICIES, is_trained_size, resize_offset_table
from visionpe.policy.grammar import PolicyTerm
from visionpe.ranges import check_init_std, draw_table
from visionpe.registry import register_encoding

AXES = ("time", "height", "width")
INTERPOLATE = PolicyTerm("interpolate")


def resize_offsets(table: Tensor, size: int, policy: str | PolicyTerm = "interpolate") -> Tensor:
    """Resize a table of offsets along one axis, in at least float32.

    Args:
        table: ``(2 n - 1, channels)``, entry ``offset + n - 1``.
        size: Tokens along the axis now.
        policy: ``interpolate``: linearly, corners not aligned; or one of
            :func:`~visionpe.policy.functions.resize_offset_table`.

    Returns:
        ``(2 size - 1, channels)``.
    """
    # The graph of an export serves every size, so it must not branch on one.
    if is_trained_size(len(table), 2 * size - 1):
        return table
    if policy not in ("interpolate", INTERPOLATE):
        return resize_offset_table(table, [size], policy, axes=[0])
    wide = table.to(torch.promote_types(table.dtype, torch.float32))
    return F.interpolate(wide.T[None], size=2 * size - 1, mode="linear")[0].T.to(table.dtype)


@register_encoding("decomposed")
class DecomposedRelativePosition(AxisVectors):
    """The unscaled query times a learned vector for the offset in rows, plus one for the offset in columns.

    Source: "MViTv2", eq. 4, in the form of ViTDet and SAM: ``logit += q . height_table[y_q - y_k + H - 1] +
    q . width_table[x_q - x_k + W - 1]``, shared by the heads, zero at first. Prefix tokens have no offset: bias 0.

    The tables are ``(depth, 2 n - 1, head_dim)``. For all pairs they have rank height + width, so no matrix is built:
    a query carries its products with every row and every column, a key says in which it stands. At another size each
    table is resized on its own, by the policy (the published code interpolates); a checkpoint of another size is
    resized on loading.

    Queries and keys of pooled attention may stand on different grids (``grid.queries``): the tables are of the finer.

    Tokens with explicit coordinates must stand at whole ones, within the extent of the grid.

    Args:
        init_std: Standard deviation of the initial entries.
        context: See :class:`~visionpe.base.PositionEncoding`.

    Raises:
        ValueError: If the grid has more than three axes.
    """

    source = "MViTv2, arXiv 2112.01526; ViTDet, arXiv 2203.16527"
    policies = ("interpolate", *READ_POLICIES)
    resized_on_load = tuple(f"{axis}_table" for axis in AXES)
    takes_pooled = True
    stacked = (("*_table", 0),)

    def __init__(self, *, init_std: float = 0.0, **context: Any) -> None:
        super().__init__(**context)
        if len(self.grid_size) > len(AXES):
            raise ValueError(f"grid_size={self.grid_size} has {len(self.grid_size)} axes; allowed: 1, 2, 3")
        self.init_std = check_init_std(init_std)
        self.names = [f"{axis}_table" for axis in AXES[-len(self.grid_size) :]]
        for name, n in zip(self.names, self.grid_size):
            table = torch.empty(self.depth, 2 * n - 1, self.head_dim, **self.factory)
            self.register_parameter(name, nn.Parameter(table))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for table in self.tables:
            draw_table(table, self.init_std)

    @property
    def tables(self) -> list[Tensor]:
        """The table of each axis, ``(depth, 2 n - 1, head_dim)``."""
        # By getattr: parametrised, sharded or given anew by `functional_call` they are no nn.Parameter.
        return [getattr(self, name) for name in self.names]

    def _resized(self, table: Tensor, size: int) -> Tensor:
        return resize_offsets(table, size, self.main_policy or INTERPOLATE)

    def bias(self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0) -> LowRankBias:
        self.check_axes(grid)
        tables = [self._resized(table[layer], n).to(q.dtype) for table, n in zip(self.tables, grid.finer.size)]
        products = self.products(q, tables, grid)
        if not grid.dense:
            return LowRankBias(torch.cat(products, dim=-1), self.places(grid, q.device, q.dtype))
        return AxesBias(products, grid, lambda: self.places(grid, q.device, q.dtype))

    def set_input_grid(self, grid_size: Sequence[int]) -> None:
        """Resize the tables themselves, as timm does in ``set_input_size``."""
        for name, table, n in zip(self.names, self.tables, grid_size):
            resized = torch.stack([self._resized(t, n) for t in table.detach()]).clone(
                memory_format=torch.contiguous_format
            )
            self.register_parameter(name, nn.Parameter(resized, requires_grad=table.requires_grad))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name, table in zip(self.names, self.tables):
            stored = state_dict.get(prefix + name)
            if (
                stored is not None
                and stored.ndim == 3
                and stored.shape[1] % 2
                and stored.shape[::2] == table.shape[::2]
            ):
                n = (table.shape[1] + 1) // 2
                state_dict[prefix + name] = torch.stack([self._resized(t, n) for t in stored])
        super()._load_from_state_dict(state_dict, prefix, *args)
