"""Learned absolute position embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from visionpe.base import PositionEncoding
from visionpe.checks import check_choice, check_counts
from visionpe.grid import Grid
from visionpe.policy.functions import ABSOLUTE_POLICIES, TABLE_POLICIES, resize_table, sample_table
from visionpe.policy.grammar import DEFAULT, PolicyTerm, parse_policy
from visionpe.precision import wide_dtype
from visionpe.ranges import check_init_std, check_table, draw_table
from visionpe.registry import register_encoding

Sampling: TypeAlias = Literal["grid", "rows"]


@register_encoding("ape")
class AbsolutePositionEmbedding(PositionEncoding):
    """One learned vector per patch, added to the tokens after the patch embedding.

    Source: "An Image is Worth 16x16 Words", section 3.1. Prefix tokens get none (as in DeiT-III); what an older
    checkpoint adds to its class token is folded into the class token on loading, which is exact.

    The table is ``(height, width, dim)``, with the time ahead of them on three axes. At another size it is resized by
    the policy, on the fly; a checkpoint trained at another size is resized on loading. Between explicit coordinates'
    whole places the entries are mixed linearly.

    Args:
        init_std: Standard deviation of the initial entries.
        sampling: ``grid``: an entry for each place of the trained grid. ``rows``: as ComRoPE's code reads its table, by
            the row of a patch alone: the middle of the columns, and of n rows the first at the height ``0.5 / n`` of a
            table of any size, corners aligned. Nothing is resized then, and no policy applies.
        attention_window: Side or sides of the windows of the model's attention in tokens, if it has any, which policy
            ``window_aware`` repeats; ``window_aware(7)`` names another, and works without.
        context: See :class:`~visionpe.base.PositionEncoding`.
    """

    source = "ViT, arXiv 2010.11929"
    policies = ABSOLUTE_POLICIES
    resized_on_load = ("table",)

    def __init__(
        self,
        *,
        init_std: float = 0.02,
        sampling: Sampling = "grid",
        attention_window: int | Sequence[int] | None = None,
        **context: Any,
    ) -> None:
        if isinstance(attention_window, int):
            attention_window = (attention_window,) * 3
        self.attention_window = (
            None if attention_window is None else check_counts("attention_window", attention_window, (2, 3), 1, 1024)
        )
        check_choice("sampling", sampling, Sampling)
        self._sample(sampling)  # first: the base asks which policies there are
        super().__init__(**context)
        self.init_std = check_init_std(init_std)
        shape = check_table("grid_size", self.grid_size, *self.grid_size, self.dim)
        self.table = nn.Parameter(torch.empty(shape, **self.factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        draw_table(self.table, self.init_std)

    def _sample(self, sampling: Sampling) -> None:
        self.sampling = sampling
        if sampling == "rows":
            self.policies = ()  # type: ignore[misc]
            self.without_policy = "ape with sampling='rows' reads between its entries at every size"
        elif self.attention_window is None:  # then a policy must name it, which a list of names cannot
            self.policies = (*TABLE_POLICIES, "fourier")  # type: ignore[misc]

    def sample_by_rows(self) -> None:
        """Read the table as ComRoPE's code does from now on; no policy applies then."""
        self._sample("rows")
        self.policy = None
        self.mark_as_built()

    def supports_policy(self, choice: PolicyTerm) -> bool:
        return self.sampling == "grid" and choice.name in ABSOLUTE_POLICIES

    def set_policy(self, policy: str) -> None:
        for choice in () if policy == DEFAULT else parse_policy(policy):
            if choice.name == "window_aware" and not choice.values and self.attention_window is None:
                choice.number()  # says what is missing
        super().set_policy(policy)

    def _resize(self, table: Tensor, size: Sequence[int]) -> Tensor:
        return resize_table(table, size, self.main_policy or self.policies[0], self.attention_window)

    def resized(self, size: Sequence[int]) -> Tensor:
        """The table at another size, ``(*size, dim)``."""
        if self.sampling == "rows":
            places = Grid(tuple(size)).positions(device=self.table.device, dtype=wide_dtype(self.table))
            return self._by_rows(places, size).unflatten(0, tuple(size))
        return self._resize(self.table, size)

    def _by_rows(self, places: Tensor, size: Sequence[int]) -> Tensor:
        """Entries for places on a grid of this size, ``(..., axes)``, as ComRoPE's code finds them: ``(..., dim)``."""
        at = [torch.full_like(places[..., 0], (n - 1) / 2) for n in self.table.shape[:-1]]
        at[-2] = (places[..., -2] + 0.5) * ((self.table.shape[-3] - 1) / size[-2])
        return sample_table(self.table, torch.stack(at, dim=-1))

    def add(self, x: Tensor, grid: Grid) -> Tensor:
        self.check_axes(grid)
        if grid.dense:
            return x + self.resized(grid.size).flatten(0, -2).to(x.dtype)
        places = grid.positions(device=x.device, dtype=wide_dtype(x))
        if self.sampling == "rows":
            return x + self._by_rows(places, grid.size).to(x.dtype)
        return x + sample_table(self.resized(grid.size), places).to(x.dtype)

    def set_input_grid(self, grid_size: Sequence[int]) -> None:
        """Resize the table itself, as timm does in ``set_input_size``; read by rows, it serves every size as it is."""
        if self.sampling == "rows":
            return
        # Contiguous, as safetensors asks for.
        resized = self.resized(grid_size).detach().clone(memory_format=torch.contiguous_format)
        self.table = nn.Parameter(resized, requires_grad=self.table.requires_grad)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        table = state_dict.get(prefix + "table")
        if table is not None and table.ndim == self.table.ndim and table.shape[-1] == self.dim:
            if self.sampling == "grid":
                state_dict[prefix + "table"] = self._resize(table, self.table.shape[:-1])
            elif table.shape != self.table.shape:
                self.table = nn.Parameter(self.table.new_empty(table.shape), requires_grad=self.table.requires_grad)
        super()._load_from_state_dict(state_dict, prefix, *args)
