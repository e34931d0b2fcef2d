"""Manhattan decay: attention fades with the distance along the axes."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from visionpe.attention.axial import AxialBias
from visionpe.attention.bias import Bias
from visionpe.checks import check_number
from visionpe.encodings.bias.offset import OffsetEncoding
from visionpe.grid import Grid
from visionpe.precision import wide_dtype
from visionpe.registry import register_encoding

Form = Literal["full", "axial"]


@register_encoding("manhattan")
class ManhattanDecay(OffsetEncoding):
    """The weight of a pair decays by a factor a head with every step along either axis; no parameters.

    Source: "RMT: Retentive Networks Meet Vision Transformers", eq. 4 (the decay matrix). It stands inside the softmax,
    as in the published code: ``logit += decay_h (|dy| + |dx|)`` with ``decay_h = ln(1 - 2 ** (-init_value -
    decay_range h / heads))``, so that the last heads look farthest. Prefix tokens have no distance: bias 0.

    The form ``axial`` (the paper's decomposed one, for large maps) attends inside each row with ``decay_h |dx|``, then,
    on that result, inside each column with ``decay_h |dy|``: see :func:`~visionpe.attention.axial.axial_attention`,
    also for prefix tokens. It is another attention, so it takes no attention mask, no explicit coordinates, and
    no second encoding that has a bias.

    Args:
        form: ``full`` or ``axial``.
        init_value: Sets the decay of the first head; 0.001 to 50.
        decay_range: How far the exponents of the heads spread; 0 to 50.
        context: See :class:`~visionpe.base.PositionEncoding`. Policy ``extrapolate`` measures distances in tokens, as
            published; ``interpolate`` in tokens of the trained grid.

    Raises:
        ValueError: If ``form`` is neither, ``init_value`` is not positive or ``decay_range`` is negative.
    """

    source = "RMT, arXiv 2309.11523"
    irregular = True
    fixed = True

    def __init__(
        self, *, form: Form = "full", init_value: float = 2.0, decay_range: float = 4.0, **context: Any
    ) -> None:
        super().__init__(**context)
        if not isinstance(form, str) or form not in get_args(Form):
            raise ValueError(f"form={form!r} is unknown to manhattan; allowed: {', '.join(get_args(Form))}")
        # A factor of at most 0 is no decay, and beyond 50 all of them are 1.
        check_number("init_value", init_value, 1e-3, 50)
        check_number("decay_range", decay_range, 0, 50)
        self.form, self.init_value, self.decay_range = form, init_value, decay_range
        if form == "axial":
            self.structure, self.takes_coords, self.takes_pooled = "axial", False, False

    def decays(self) -> list[float]:
        """The logarithm of the factor of each head, negative."""
        exponents = [self.init_value + self.decay_range * head / self.num_heads for head in range(self.num_heads)]
        return [log(1 - 2**-exponent) for exponent in exponents]

    def function(self, offsets: Sequence[Tensor], grid: Grid, layer: int) -> Tensor:
        steps = torch.zeros((), device=offsets[0].device, dtype=offsets[0].dtype)
        for d in self.scaled(offsets, grid):
            steps = steps + d.abs()
        key = ("decays", steps.device, steps.dtype)
        decays = self.cache.get(key, lambda: steps.new_tensor(self.decays()))
        return decays.view(-1, *[1] * steps.ndim) * steps  # (heads, ...)

    def _bias(self, q: Tensor, grid: Grid, layer: int) -> Bias:
        if self.form == "full":
            return super()._bias(q, grid, layer)
        key = (grid.size, self.policy, self.grid_size, q.device, wide_dtype(q))
        tables = self.cache.get(("axial", *key), lambda: self._lines(q, grid, layer))
        return AxialBias(tables, grid, cache=self.cache, key=key)

    def _lines(self, q: Tensor, grid: Grid, layer: int) -> tuple[Tensor, ...]:
        """The decay along each axis, as if the offset along the others were zero: ``(heads, 2 n - 1)`` each."""
        steps = [torch.arange(1 - n, n, device=q.device, dtype=wide_dtype(q)) for n in grid.size]
        return tuple(
            self.function([d if a == axis else torch.zeros_like(d) for a in range(grid.axes)], grid, layer)
            for axis, d in enumerate(steps)
        )

    def extra_repr(self) -> str:
        shape = f"form={self.form!r}, init_value={self.init_value}, decay_range={self.decay_range}"
        return f"{shape}, {super().extra_repr()}"
