"""Learned absolute position embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from visionpe.base import PositionEncoding
from visionpe.checks import check_counts
from visionpe.grid import Grid
from visionpe.policy.functions import ABSOLUTE_POLICIES, TABLE_POLICIES, resize_table, sample_table
from visionpe.policy.grammar import DEFAULT, PolicyTerm, parse_policy
from visionpe.precision import wide_dtype
from visionpe.ranges import check_init_std, check_table, draw_table
from visionpe.registry import register_encoding


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
        attention_window: Side or sides of the windows of the model's attention in tokens, if it has any, which policy
            ``window_aware`` repeats; ``window_aware(7)`` names another, and works without.
        context: See :class:`~visionpe.base.PositionEncoding`.
    """

    source = "ViT, arXiv 2010.11929"
    policies = ABSOLUTE_POLICIES
    resized_on_load = ("table",)

    def __init__(
        self, *, init_std: float = 0.02, attention_window: int | Sequence[int] | None = None, **context: Any
    ) -> None:
        if isinstance(attention_window, int):
            attention_window = (attention_window,) * 3
        self.attention_window = (
            None if attention_window is None else check_counts("attention_window", attention_window, (2, 3), 1, 1024)
        )
        super().__init__(**context)
        if self.attention_window is None:  # then a policy must name it, which a list of names cannot
            self.policies = (*TABLE_POLICIES, "fourier")  # type: ignore[misc]
        self.init_std = check_init_std(init_std)
        shape = check_table("grid_size", self.grid_size, *self.grid_size, self.dim)
        self.table = nn.Parameter(torch.empty(shape, **self.factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        draw_table(self.table, self.init_std)

    def supports_policy(self, choice: PolicyTerm) -> bool:
        return choice.name in ABSOLUTE_POLICIES

    def set_policy(self, policy: str) -> None:
        for choice in () if policy == DEFAULT else parse_policy(policy):
            if choice.name == "window_aware" and not choice.values and self.attention_window is None:
                choice.number()  # says what is missing
        super().set_policy(policy)

    def _resize(self, table: Tensor, size: Sequence[int]) -> Tensor:
        return resize_table(table, size, self.main_policy or self.policies[0], self.attention_window)

    def resized(self, size: Sequence[int]) -> Tensor:
        """The table at another size, ``(*size, dim)``."""
        return self._resize(self.table, size)

    def add(self, x: Tensor, grid: Grid) -> Tensor:
        self.check_axes(grid)
        table = self.resized(grid.size)  # (*size, dim)
        if grid.dense:
            return x + table.flatten(0, -2).to(x.dtype)
        return x + sample_table(table, grid.positions(device=x.device, dtype=wide_dtype(x))).to(x.dtype)

    def set_input_grid(self, grid_size: Sequence[int]) -> None:
        """Resize the table itself, as timm does in ``set_input_size``."""
        # Contiguous, as safetensors asks for.
        resized = self.resized(grid_size).detach().clone(memory_format=torch.contiguous_format)
        self.table = nn.Parameter(resized, requires_grad=self.table.requires_grad)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        table = state_dict.get(prefix + "table")
        if table is not None and table.ndim == self.table.ndim and table.shape[-1] == self.dim:
            state_dict[prefix + "table"] = self._resize(table, self.table.shape[:-1])
        super()._load_from_state_dict(state_dict, prefix, *args)
