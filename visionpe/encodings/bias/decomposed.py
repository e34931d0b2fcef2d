"""Decomposed relative position: the query meets one table an axis."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionpe.attention.bias import AxesBias, LowRankBias
from visionpe.base import PositionEncoding
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


def offset_index(queries: int, keys: int, *, stride: int | None = None, device: torch.device | None = None) -> Tensor:
    """Rows of a table of offsets for all pairs along one axis whose queries or keys are pooled.

    Both kinds of token are stretched over the finer of the two grids: "MViTv2", section 4.1, and its published code.

    Args:
        queries, keys: Tokens along the axis.
        stride: Every how many keys a query stands, from the first, where these are not stretched.

    Returns:
        ``(queries, keys)``, from 0 to ``2 max(queries, keys) - 2``.
    """
    i = torch.arange(queries, device=device)[:, None]
    if stride is not None or queries == keys:
        return i * (stride or 1) - torch.arange(keys, device=device) + keys - 1
    back = torch.arange(keys - 1, -1, -1, device=device)
    # In whole numbers: in floating point some offsets come out just below a whole one.
    return max(queries, keys) * (i * keys + back * queries) // (queries * keys)


def decomposed_terms(
    q: Tensor,
    tables: Sequence[Tensor],
    query_size: Sequence[int],
    key_size: Sequence[int],
    stride: Sequence[int] | None = None,
) -> list[Tensor]:
    """Products of every query with the table entries of all rows, of all columns, ... of the keys.

    Their sum over the axes, each at the place of the key, is the bias; the grids differ where attention pools.

    Args:
        q: Unscaled spatial queries, ``(B, heads, N, head_dim)``.
        tables: One ``(2 max(n, m) - 1, head_dim)`` an axis of n queries and m keys.
        query_size, key_size: Tokens per axis.
        stride: See :class:`~visionpe.grid.Grid`.

    Returns:
        One ``(B, heads, N, m)`` an axis.
    """
    q, terms = q.unflatten(2, tuple(query_size)), []
    steps: Sequence[int | None] = stride or [None] * len(tables)
    for axis, (table, n, m, step) in enumerate(zip(tables, query_size, key_size, steps), start=2):
        entries = table[offset_index(n, m, stride=step, device=q.device)]  # (n, m, head_dim)
        lines = q.movedim(axis, 2)  # (B, heads, n, ..., head_dim)
        lines = lines if lines.ndim > 4 else lines[:, :, :, None]  # of one axis there are no others
        term = torch.einsum("bhnxc,nmc->bhnxm", lines.flatten(3, -2), entries)
        term = term.unflatten(3, lines.shape[3:-1]).movedim(2, axis)  # (B, heads, *query_size, m)
        terms.append(term.flatten(2, -2))
    return terms


@register_encoding("decomposed")
class DecomposedRelativePosition(PositionEncoding):
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
    structure = "low rank"
    policies = ("interpolate", *READ_POLICIES)
    resized_on_load = tuple(f"{axis}_table" for axis in AXES)
    whole_coords = True
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
        tokens = q[..., grid.prefix :, :]  # (B, heads, N_spatial, head_dim)
        products = self._dense(tokens, tables, grid) if grid.dense else self._listed(tokens, tables, grid)
        if grid.prefix:
            products = [F.pad(product, (0, 0, grid.prefix, 0)) for product in products]  # (B, heads, N, n)
        if not grid.dense:
            return LowRankBias(torch.cat(products, dim=-1), self._places(grid, q.device, q.dtype))
        key = (grid.size, grid.prefix, q.device, q.dtype)
        places = partial(self._places, grid, q.device, q.dtype)
        return AxesBias(products, grid, lambda: self.cache.get(key, places))

    def _dense(self, tokens: Tensor, tables: list[Tensor], grid: Grid) -> list[Tensor]:
        """Products of every query with the table entries of all rows, of all columns, ...: ``(B, heads, N, n)``."""
        return decomposed_terms(tokens, tables, grid.queries or grid.size, grid.size, grid.stride)

    def _positions(self, grid: Grid, device: torch.device) -> list[Tensor]:
        """Whole coordinates along each axis, the smallest 0: only offsets matter."""
        places = grid.whole_positions(self.name, device=device, offsets=True)
        return list((places - places.amin(-2, keepdim=True)).unbind(-1))

    def _listed(self, tokens: Tensor, tables: list[Tensor], grid: Grid) -> list[Tensor]:
        """The same where tokens are no full grid: products with all offsets, of which each token takes its own."""
        products = []
        for table, p, n in zip(tables, self._positions(grid, tokens.device), grid.size):
            index = p[..., None] - torch.arange(n, device=p.device) + n - 1  # ([B,] N, n)
            every = tokens @ table.T  # (B, heads, N, 2 n - 1)
            index = index.expand(len(tokens), -1, -1)[:, None]  # one for all samples, or each its own
            products.append(every.gather(-1, index.expand(-1, every.shape[1], -1, -1)))
        return products

    def _places(self, grid: Grid, device: torch.device, dtype: torch.dtype) -> Tensor:
        """In which row, column, ... each key stands, one-hot: ``(1 or B, 1, N, rank)``."""
        hot = [p[..., None] == torch.arange(n, device=device) for p, n in zip(self._positions(grid, device), grid.size)]
        places = torch.cat(hot, dim=-1).to(dtype)  # ([B,] N_spatial, rank)
        places = F.pad(places, (0, 0, grid.prefix, 0))
        return places[:, None] if places.ndim == 3 else places[None, None]

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
