"""Several encodings that act as one."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor, nn

from visionpe.attention.bias import Bias
from visionpe.attention.dispatch import AttentionWeights
from visionpe.attention.logits import Decay, LogitRule
from visionpe.base import ACTIONS, PositionEncoding
from visionpe.grid import Grid
from visionpe.memo import Carried
from visionpe.mixed import MixedGrid
from visionpe.policy.functions.logits import log_temperature
from visionpe.policy.holder import HasPolicy
from visionpe.watching import drop_summary_hooks

_EVERYWHERE = frozenset(ACTIONS)


def refuse_carrying(parts: Sequence[PositionEncoding | type[PositionEncoding]]) -> None:
    """Refuse encodings that carry something from block to block, for a backbone whose blocks hand on tokens alone.

    Raises:
        ValueError: Names the first.
    """
    for part in parts:
        if part.carries:
            raise ValueError(
                f"pos_encoding={part.name!r} has positions of its own that go from block to block beside the tokens "
                "and are attended to with them, which blocks hand on in a plain ViT alone; allowed: a vit_* model"
            )


class Composition(HasPolicy, nn.ModuleDict):
    """Several encodings that act as one, under the names of their parts: ``"rope_mixed+ape"``.

    It holds the policies that concern attention as a whole, whatever the encoding: ``temperature`` multiplies logits
    by ``log(N) / log(N_trained)``, ``decay`` weakens those of keys outside the trained window.

    Args:
        parts: The encodings, in the order in which they act at each site.

    Raises:
        ValueError: If two parts have the same name, one attends along the axes alone and another needs all pairs, or
            one that turns queries and keys suffers no other.
    """

    def __init__(self, parts: Sequence[PositionEncoding]) -> None:
        names, spelt = [part.name for part in parts], "+".join(part.spelling for part in parts)
        if len(set(names)) < len(names):
            raise ValueError(f"pos_encoding={spelt!r} names the same encoding twice")
        axial = [part for part in parts if part.structure == "axial"]
        for part in parts if axial else ():
            if part is not axial[0] and part.structure != "none":
                raise ValueError(
                    f"pos_encoding={spelt!r}: {axial[0].name!r} attends along rows, then columns, where "
                    f"{part.name!r} finds no logits or weights of all pairs; allowed: parts without a bias"
                )
        turning = [part for part in parts if "rotate" in part.sites()]
        wide = next((part for part in turning if part.widens), None)
        if wide is not None and len(turning) > 1:
            raise ValueError(
                f"pos_encoding={spelt!r}: queries and keys leave {wide.name!r} wider than they came, where others "
                "that turn them want their own width; allowed: one that turns them"
            )
        carrying = next((part for part in turning if part.carries), None)
        if carrying is not None and len(turning) > 1:
            raise ValueError(
                f"pos_encoding={spelt!r}: {carrying.name!r} turns queries and keys by what blocks make of the "
                "positions that it starts from; allowed: one that turns queries and keys"
            )
        between = next((part for part in turning if "output" in part.sites()), None)
        if between is not None and len(turning) > 1:
            raise ValueError(
                f"pos_encoding={spelt!r}: {between.name!r} turns queries, keys, values and the output alike, and would "
                "not be relative with others among them; allowed: one that turns queries and keys"
            )
        super().__init__(dict(zip(names, parts)))
        self.mark_as_built()
        # Attention along the axes has no logits of all pairs.
        self.modifiers = ("temperature",) if axial else ("temperature", "decay")  # type: ignore[misc]

    @property
    def display_name(self) -> str:
        return "+".join(self)

    def logit_rule(self, grid: Grid) -> LogitRule | None:
        """What is done to the logits of tokens on ``grid``; None for nothing."""
        if not (self._terms or self.acts("logit_factor")):
            return None
        factor, decay, size = 1.0, None, grid.finer.size
        for part in self.parts:
            factor *= part.logit_factor(grid.finer)
        if self._terms and self.parts:
            trained = self.parts[0].grid_size
            if warm := self.modifier("temperature"):
                tokens, before = (prod(size) + grid.prefix, prod(trained) + grid.prefix)
                factor *= log_temperature(tokens, before, warm.number())
            fading, larger = self.modifier("decay"), [n > m for n, m in zip(size, trained)]
            if fading and any(larger):
                decay = Decay(grid, [m / 2 if more else None for m, more in zip(trained, larger)], fading.number())
        return None if factor == 1 and decay is None else LogitRule(factor, decay)

    @property
    def reads_tokens(self) -> bool:
        """Whether a part reads the tokens that attention is given."""
        return any(getattr(part, "reads_tokens", False) for part in self._modules.values())

    @property
    def carries(self) -> bool:
        """Whether a part has something that goes from block to block beside the tokens."""
        return any(getattr(part, "carries", False) for part in self._modules.values())

    @property
    def parts(self) -> list[PositionEncoding]:
        return list(self._modules.values())  # type: ignore[arg-type]

    def at(self, site: str) -> list[PositionEncoding]:
        """The parts that act at ``site``."""
        return [part for part in self.parts if site in part.sites()]

    def _acting(self, site: str) -> list[PositionEncoding]:
        """The parts whose class does something at ``site``, and what another library put in the place of one."""
        return [part for part in self._modules.values() if site in getattr(type(part), "acting", _EVERYWHERE)]  # type: ignore[misc]

    def acts(self, *sites: str) -> bool:
        """Whether some part acts at one of ``sites``."""
        # Asked several times a block: `any` over a generator takes three times as long.
        for part in self._modules.values():
            acting = getattr(type(part), "acting", _EVERYWHERE)
            for site in sites:
                if site in acting:
                    return True
        return False

    def acts_on_logits(self) -> bool:
        """Whether queries, keys or their logits are anything but what they are without positions."""
        return bool(self._terms) or self.acts("rotate", "bias", "logit_factor")

    @staticmethod
    def _call(part: PositionEncoding, site: str, *args: Any, **kwargs: Any) -> Any:
        if part._forward_pre_hooks:
            drop_summary_hooks(part)
        return part(site, *args, **kwargs)

    def add(self, x: Tensor, grid: Grid) -> Tensor:
        for part in self._acting("add"):
            x = self._call(part, "add", x, grid)
        return x

    def inject(self, x: Tensor, grid: Grid | MixedGrid, *, layer: int = 0) -> Tensor:
        for part in self._acting("inject"):
            x = self._on_tokens(part, "inject", x, grid, layer)
        return x

    def refine(self, x: Tensor, grid: Grid | MixedGrid, *, layer: int = 0) -> Tensor:
        for part in self._acting("refine"):
            x = self._on_tokens(part, "refine", x, grid, layer)
        return x

    def _on_tokens(self, part: PositionEncoding, site: str, x: Tensor, grid: Grid | MixedGrid, layer: int) -> Tensor:
        if isinstance(grid, MixedGrid):
            return grid.each(lambda own, its: self._call(part, site, its, own, layer=layer), x)
        return self._call(part, site, x, grid, layer=layer)

    def rotate(
        self,
        q: Tensor,
        k: Tensor,
        grid: Grid,
        *,
        layer: int = 0,
        tokens: Tensor | None = None,
        carried: Carried | None = None,
    ) -> tuple[Tensor, Tensor]:
        for part in self._acting("rotate"):
            if getattr(part, "reads_tokens", False):
                q, k = self._call(part, "rotate", q, k, grid, layer=layer, tokens=tokens)
            elif getattr(part, "carries", False):
                q, k = self._call(part, "rotate", q, k, grid, layer=layer, carried=carried)
            else:
                q, k = self._call(part, "rotate", q, k, grid, layer=layer)
        return q, k

    def bias(self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0, tokens: Tensor | None = None) -> list[Bias]:
        biases = []
        for part in self._acting("bias"):  # a comprehension would tie the graphs of torch 2.9 to the block
            if getattr(part, "reads_tokens", False):
                bias = self._call(part, "bias", q, k, grid, layer=layer, tokens=tokens)
            else:
                bias = self._call(part, "bias", q, k, grid, layer=layer)
            if bias is not None:
                biases.append(bias)
        return biases

    def value(self, v: Tensor, grid: Grid, *, layer: int = 0, carried: Carried | None = None) -> Tensor:
        for part in self._acting("value"):
            if getattr(part, "carries", False):
                v = self._call(part, "value", v, grid, layer=layer, carried=carried)
            else:
                v = self._call(part, "value", v, grid, layer=layer)
        return v

    def output(self, attended: Tensor, grid: Grid, *, layer: int = 0, carried: Carried | None = None) -> Tensor:
        for part in reversed(self._acting("output")):  # what acted last on the values is undone first
            if getattr(part, "carries", False):
                attended = self._call(part, "output", attended, grid, layer=layer, carried=carried)
            else:
                attended = self._call(part, "output", attended, grid, layer=layer)
        return attended

    def carrying(self, grid: Grid | MixedGrid, tensors: Sequence[Tensor]) -> Carried | None:
        """What one block carries, given ``tensors`` by the one before it; None where no part carries anything."""
        if not self.carries:
            return None
        return Carried([part.grid for part in grid.parts] if isinstance(grid, MixedGrid) else [grid], tensors)

    def carry(self, fed: Tensor, grid: Grid | MixedGrid, carried: Carried, *, layer: int = 0) -> None:
        """See :meth:`PositionEncoding.carry`."""
        for part in self._acting("carry"):
            for own, its in zip(carried.grids, grid.split(fed) if isinstance(grid, MixedGrid) else [fed]):
                self._call(part, "carry", its, own, carried, layer=layer)

    def mix(
        self, attended: Tensor, v: Tensor, grid: Grid, *, layer: int = 0, weights: AttentionWeights | None = None
    ) -> Tensor:
        for part in self._acting("mix"):
            attended = self._call(part, "mix", attended, v, grid, layer=layer, weights=weights)
        return attended

    def keep_blocks(self, count: int) -> None:
        """See :meth:`PositionEncoding.keep_blocks`."""
        for part in self.parts:
            part.keep_blocks(count)

    def no_weight_decay(self) -> set[str]:
        return {f"{name}.{key}" for name, part in zip(self, self.parts) for key in part.no_weight_decay()}
