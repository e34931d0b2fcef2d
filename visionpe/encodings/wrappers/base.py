"""Wrappers: an encoding that changes in training what another one sees, and leaves no trace afterwards."""

from __future__ import annotations

import weakref
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from visionpe.attention.bias import Bias
from visionpe.attention.dispatch import AttentionWeights
from visionpe.base import PositionEncoding
from visionpe.grid import Grid
from visionpe.policy.grammar import PolicyTerm
from visionpe.registry import Spec, create_encodings
from visionpe.tracing import is_exporting, is_tracing

# What a module keeps its parameters, buffers and children in.
STORES = ("_parameters", "_buffers", "_non_persistent_buffers_set", "_modules")
# What is known of an encoding once it is built.
FACTS = (
    *("name", "source", "structure", "policies", "modifiers", "resized_on_load", "takes_coords", "reads_neighbours"),
    *("joins_every_block", "renamed", "reads_tokens", "sites", "stacked", "widens", "without_policy"),
)
SIZES = ("dim", "num_heads", "head_dim", "depth", "factory")


class DrawMemo:
    """What was drawn for the forward passes under way, each known by its ``Grid`` object."""

    def __init__(self) -> None:
        self.latest: Tensor | None = None
        self._ready: dict[int, Any] = {}

    def put(self, grid: Grid, value: Any) -> None:
        """Keep ``value`` for as long as ``grid`` lives."""
        if id(grid) not in self._ready:
            weakref.finalize(grid, self._ready.pop, id(grid), None)
        self._ready[id(grid)] = value

    def get(self, grid: Grid) -> Any:
        return self._ready.get(id(grid))

    def __deepcopy__(self, memo: dict[int, Any]) -> DrawMemo:
        return DrawMemo()

    def __getstate__(self) -> dict[str, Any]:
        return {"latest": None, "_ready": {}}  # nothing of it is pickled


class PositionWrapper(PositionEncoding):
    """Base of the wrappers: does nothing in eval mode, and something random to positions in training.

    Everything but the randomness is that of the encoding underneath: sites, policies, parameters. The parameters
    *are* its own, under its name (``pos_encoding.ape.table``, for ``"dropped(ape)"`` as for ``"ape"``), so that a
    model trained with a wrapper loads into one without, and back.

    A pass draws once, at ``add``, by which every backbone starts; all layers share the draw, under gradient
    checkpointing and ``torch.compile`` too. Where ``add`` was not called, each call of a site draws its own. All
    randomness comes from torch's global generator.

    A subclass overrides :meth:`draw`, and the sites or :meth:`stand`.

    Args:
        over: The encoding underneath, one: a composition is wrapped part by part, ``"dropped(ape)+rope_axial"``.
        context: See :class:`~visionpe.base.PositionEncoding`; it goes to the encoding underneath.

    Raises:
        ValueError: If ``over`` is not exactly one encoding, or acts on values before attention.
    """

    is_wrapper = True
    hands_on_hints = True
    # Whether tokens leave the full map, and whole coordinates: not every encoding can stand under that.
    moves_tokens: ClassVar[bool] = False
    breaks_whole: ClassVar[bool] = False

    def __init__(self, *, over: Spec | None = None, **context: Any) -> None:
        nn.Module.__init__(self)  # what the base would keep is the inner encoding's
        kind = type(self).name
        if over is None:
            raise ValueError(f"over=None: {kind!r} stands over another encoding; allowed: '{kind}(ape)' and the like")
        parts = create_encodings(over, **context)
        if len(parts) != 1:
            raise ValueError(
                f"over={over!r} is not one encoding; wrap each part: {'+'.join(f'{kind}({p.spelling})' for p in parts)}"
            )
        inner = parts[0]
        # Not a child but the same module once more: what is registered in one is registered in the other.
        self.__dict__.update({key: inner.__dict__[key] for key in STORES})
        self.__dict__.update({key: getattr(inner, key) for key in (*FACTS, *SIZES)})
        self.__dict__["_over"] = inner
        inner.__dict__["lent"] = (self, frozenset(name for name, _ in inner.named_parameters(recurse=False)))
        parts_within = [part for part in inner.modules() if isinstance(part, PositionEncoding)]
        self.__dict__["whole_coords"] = type(self).whole_coords or any(part.whole_coords for part in parts_within)
        self.acts_at: frozenset[str] = inner.acts_at if isinstance(inner, PositionWrapper) else inner.acting
        if self.acts_at & {"value", "output"}:
            raise ValueError(
                f"over={over!r}: what {type(inner).name!r} does to values it undoes at the output, and {kind!r} might "
                "draw anew in between; allowed: encodings that leave values as they are"
            )
        self.memo = DrawMemo()
        for part in parts_within:  # an encoding may stand over another
            if self.moves_tokens and not part.takes_coords:
                raise ValueError(
                    f"over={over!r}: {kind!r} moves tokens, and {type(part).name!r} needs them to fill the map; "
                    "allowed: encodings that read coordinates"
                )
            if self.breaks_whole and part.whole_coords:
                raise ValueError(
                    f"over={over!r}: {kind!r} puts tokens between places, and {type(part).name!r} reads whole "
                    "coordinates alone; allowed: encodings that read fractional ones"
                )

    @abstractmethod
    def draw(self, grid: Grid, batch: int, device: torch.device) -> Tensor:
        """Draw for every sample of a pass: a tensor whose first axis is ``batch``."""

    def fits(self, drawn: Tensor, grid: Grid) -> bool:
        """Whether what was drawn at ``add`` serves ``grid``, which may have lost patches since."""
        return True

    def ready(self, drawn: Tensor, grid: Grid) -> Any:
        """What the sites need of the draw."""
        return drawn

    def stand(self, x: Tensor, grid: Grid) -> Grid:
        """Where the encoding underneath sees the tokens of ``x``."""
        return grid

    def drawn(self, x: Tensor, grid: Grid) -> Any:
        """What the sites need of the draw of this pass."""
        if is_exporting():  # nothing may be left behind by a graph
            return self.ready(self.draw(grid, len(x), x.device), grid)
        kept = None if is_tracing() else self.memo.get(grid)
        if kept is not None:
            return kept
        latest = self.memo.latest
        if latest is None or len(latest) != len(x) or not self.fits(latest, grid):
            return self.ready(self.draw(grid, len(x), x.device), grid)
        return self._keep(latest.to(x.device), grid)

    def _keep(self, drawn: Tensor, grid: Grid) -> Any:
        ready = self.ready(drawn, grid)
        if not is_tracing():  # for layers that run again in the backward pass, maybe after others
            self.memo.put(grid, ready)
        return ready

    def add(self, x: Tensor, grid: Grid) -> Tensor:
        if self.training and not is_exporting():
            self.check_axes(grid)
            self.memo.latest = self.draw(grid, len(x), x.device)
            self._keep(self.memo.latest, grid)
        return self.beneath.add(x, self.stand(x, grid))

    def inject(self, x: Tensor, grid: Grid, *, layer: int = 0) -> Tensor:
        return self.beneath.inject(x, self.stand(x, grid), layer=layer)

    def refine(self, x: Tensor, grid: Grid, *, layer: int = 0) -> Tensor:
        return self.beneath.refine(x, self.stand(x, grid), layer=layer)

    def rotate(self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0, **read: Any) -> tuple[Tensor, Tensor]:
        return self.beneath.rotate(q, k, self.stand(q, grid), layer=layer, **self._read("rotate", read))

    def bias(self, q: Tensor, k: Tensor, grid: Grid, *, layer: int = 0, **read: Any) -> Bias | None:
        return self.beneath.bias(q, k, self.stand(q, grid), layer=layer, **self._read("bias", read))

    def _read(self, site: str, read: dict[str, Any]) -> dict[str, Any]:
        """What the encoding underneath reads at a site besides: nothing where it does not act, and the base answers."""
        return read if site in self.acts_at else {}

    def mix(
        self, attended: Tensor, v: Tensor, grid: Grid, *, layer: int = 0, weights: AttentionWeights | None = None
    ) -> Tensor:
        return self.beneath.mix(attended, v, self.stand(v, grid), layer=layer, weights=weights)

    def of_block(self, x: Tensor, grid: Grid, *, layer: int) -> dict[str, Any]:
        if type(innermost(self)).of_block is PositionEncoding.of_block:
            return {}
        return self.beneath.of_block(x, self.stand(x, grid), layer=layer)

    @property
    def beneath(self) -> PositionEncoding:
        return self.__dict__["_over"]

    @property
    def over(self) -> PositionEncoding:
        """The encoding underneath; where that stands over another, that other, as paths of parameters have it."""
        return self.__dict__["_modules"].get("over") or self.beneath

    # What the encoding underneath may change later.
    grid_size = property(lambda self: self.beneath.grid_size, lambda self, v: setattr(self.beneath, "grid_size", v))
    policy = property(lambda self: self.beneath.policy, lambda self, v: setattr(self.beneath, "policy", v))
    policy_terms = property(lambda self: self.beneath.policy_terms)
    policy_is_chosen = property(lambda self: self.beneath.policy_is_chosen)
    built_policy = property(lambda self: self.beneath.built_policy)

    def supports_policy(self, choice: PolicyTerm) -> bool:
        return self.beneath.supports_policy(choice)

    def set_policy(self, policy: str) -> None:
        self.beneath.set_policy(policy)

    def mark_as_built(self) -> None:
        self.beneath.mark_as_built()

    def logit_factor(self, grid: Grid) -> float:
        return self.beneath.logit_factor(grid)

    def set_input_grid(self, grid_size: Sequence[int]) -> None:
        self.beneath.set_input_grid(grid_size)

    def keep_blocks(self, count: int) -> None:
        self.beneath.keep_blocks(count)

    def reset_parameters(self) -> None:
        self.beneath.reset_parameters()

    def no_weight_decay(self) -> set[str]:
        return self.beneath.no_weight_decay()

    # What a module does to itself, as far as it differs from class to class.

    def train(self, mode: bool = True) -> Any:
        self.beneath.train(mode)
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self.beneath._apply(fn, recurse)
        return self

    def _replicate_for_data_parallel(self) -> Any:
        replica = super()._replicate_for_data_parallel()
        inner = self.beneath._replicate_for_data_parallel()
        replica.__dict__["_over"], layer = inner, inner
        inner.__dict__["lent"] = (replica, inner.__dict__["lent"][1])
        while layer is not None:  # down to the innermost, all have one store
            layer.__dict__ |= {key: replica.__dict__[key] for key in STORES}
            layer = layer.beneath if isinstance(layer, PositionWrapper) else None
        return replica

    def _load_from_state_dict(self, *args: Any) -> None:
        self.beneath._load_from_state_dict(*args)

    def extra_repr(self) -> str:
        return f"over={type(self.beneath).__name__}({self.beneath.extra_repr()})"


def innermost(encoding: PositionEncoding) -> PositionEncoding:
    """What stands under all wrappers; an encoding without any is that itself."""
    while isinstance(encoding, PositionWrapper):
        encoding = encoding.beneath
    return encoding
