"""The encodings of one stage: those that act on the map, and those inside its windows, for each way to cut it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from visionpe.base import PositionEncoding
from visionpe.composition import Composition, refuse_carrying
from visionpe.encodings.wrappers.base import innermost
from visionpe.registry import Spec, create_encodings, get_encoding, list_encodings

# Sites that are not in attention.
ON_TOKENS = {"add", "inject", "refine"}


@dataclass(frozen=True)
class WindowKind:
    """What attention in one kind of window is built for.

    Args:
        dim: Width of its heads together.
        num_heads: Its heads.
        depth: Blocks that have it.
        grid_size: Tokens along each axis of the window at the trained size; of the finer grid, where it pools.
        pools: Whether queries and keys are different tokens there.
        takes: Which of the encodings inside attention act there; all by default.
        prefix: Tokens ahead of those of the map.
    """

    dim: int
    num_heads: int
    depth: int
    grid_size: tuple[int, ...]
    pools: bool = False
    takes: Callable[[PositionEncoding], bool] = lambda part: True
    prefix: int = 0


def injects(part: PositionEncoding) -> bool:
    """Whether an encoding that adds to tokens does so at the input of every attention."""
    return "inject" in innermost(part).acting


def built_by_default(name: str) -> PositionEncoding | None:
    """An encoding with its options by default, without numbers, so that none are drawn; None where it needs others."""
    try:
        return create_encodings(name, dim=48, num_heads=2, depth=1, grid_size=(2, 2), device="meta")[0]
    except (TypeError, ValueError):
        return None


def works_pooled(part: PositionEncoding | None) -> bool:
    """Whether an encoding can work in a model whose attention pools queries or keys: there, or on tokens alone."""
    return part is not None and (part.takes_pooled or set(part.sites()) <= ON_TOKENS)


def check_pooled(part: PositionEncoding) -> None:
    """Refuse an encoding inside attention whose queries and keys are different tokens, where it needs the same ones.

    Raises:
        ValueError: Names it, and those that can work.
    """
    if not part.takes_pooled and part.sites():
        able = [name for name in list_encodings() if get_encoding(name).takes_pooled and name != part.name]
        raise ValueError(
            f"pos_encoding={part.spelling!r}, as it is built, needs queries and keys to be the same tokens, and "
            f"attention pools them here; allowed: {', '.join(able)}, 'none', and what acts on tokens alone, as 'ape' "
            "does"
        )


def check_widths(encoding: StageEncoding, *, inputs: bool, outputs: bool = True, joined: bool | None = None) -> None:
    """Refuse an encoding that acts in every block of a stage, where the width there is not the one it is built for.

    Args:
        encoding: Of the stage.
        inputs: Whether the inputs of all attentions have that width.
        outputs: Whether the outputs of all blocks have it.
        joined: Whether something may be added to the inputs of all blocks; None for ``inputs``.

    Raises:
        ValueError: Names it, and what can work.
    """
    for part in encoding.map.parts:
        before_each, what = injects(part), ""
        if part.joins_every_block and not (inputs if joined is None else joined):
            what = "input of every block"
        elif before_each and not inputs:
            what = "input of every attention"
        elif not before_each and "refine" in part.sites() and not outputs:
            what = "output of every block"
        if what:
            raise ValueError(
                f"pos_encoding={part.spelling!r} acts on the {what}, whose width changes within a stage here; allowed: "
                "what adds to the tokens once, such as 'ape', or acts in attention"
            )


class StageEncoding(nn.Module):
    """One specification, built for every place of a stage that a part of it acts at.

    Parts that act on tokens (``add``, ``refine``, and ``add`` in its form inside blocks) are built once, for the map
    of the stage. Parts that act in attention (all other sites) are built once for each kind of window, and see
    positions inside it. What adds to the tokens after the patch embedding stands in the first stage only.

    Args:
        spec: See :func:`visionpe.create_encoding`.
        dim: Width of the tokens.
        num_heads: Attention heads.
        depth: Blocks of the stage.
        grid_size: Tokens along each axis of the map at the trained size.
        kinds: Name -> what attention in that kind of window is built for.
        first: The tokens of this stage come from the patch embedding.
        factory: ``device`` and ``dtype`` of the parameters, and what the backbone knows besides.

    Raises:
        ValueError: If a part is unknown or cannot work here.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        dim: int,
        num_heads: int,
        depth: int,
        grid_size: tuple[int, ...],
        kinds: Mapping[str, WindowKind],
        first: bool = True,
        **factory: Any,
    ) -> None:
        super().__init__()
        of_map = {**factory, "prefix_slots": 0}  # no prefix tokens on a map
        parts = create_encodings(spec, dim=dim, num_heads=num_heads, depth=depth, grid_size=grid_size, **of_map)
        refuse_carrying(parts)
        tokens = [set(part.sites()) <= {"add", "refine"} for part in parts]
        kept = [
            part for part, own in zip(parts, tokens) if own and (first or part.sites() != ("add",) or injects(part))
        ]
        self.map = Composition(kept)
        self.inside = nn.ModuleDict()
        for kind, its in kinds.items():
            context = {
                "dim": its.dim,
                "token_dim": dim,
                "num_heads": its.num_heads,
                "depth": its.depth,
                "grid_size": its.grid_size,
            }
            built = create_encodings(spec, **context, **(factory if its.prefix else of_map))
            attending = [part for part, own in zip(built, tokens) if not own and its.takes(part)]
            for part in attending if its.pools else ():
                check_pooled(part)
            self.inside[kind] = Composition(attending)
        # True where positions are added ahead of the first block of this stage, as well as after the patch embedding.
        self.joins_every_block = any(part.joins_every_block for part in kept)
        # True where a part takes windows for pieces of the map, so that neighbours must be neighbours there.
        self.reads_neighbours = any(part.reads_neighbours for part in self.parts)

    @property
    def parts(self) -> list[PositionEncoding]:
        """All encodings, those of the map first."""
        return [part for group in (self.map, *self.inside.values()) for part in group.parts]  # type: ignore[union-attr]

    def at(self, site: str) -> list[PositionEncoding]:
        """The parts that act at ``site``."""
        return [part for part in self.parts if site in part.sites()]

    def set_input_grid(self, grid_size: Sequence[int], windows: Mapping[str, Sequence[int]]) -> None:
        """Adapt what is stored per position to another nominal map, and to other windows where they follow it."""
        for part in self.map.parts:
            part.set_input_grid(grid_size)
        for kind, size in windows.items():
            for part in self.inside[kind].parts:  # type: ignore[union-attr]
                part.set_input_grid(size)

    def keep_blocks(self, count: int, inside: Mapping[str, int]) -> None:
        """Drop what belongs to other blocks than the first ``count``, and to kinds of window that none of them has.

        Args:
            count: Blocks that are left.
            inside: How many of them have each kind of window.
        """
        self.map.keep_blocks(count)
        for kind in list(self.inside):
            if inside.get(kind):
                self.inside[kind].keep_blocks(inside[kind])  # type: ignore[operator]
            else:
                del self.inside[kind]

    def no_weight_decay(self) -> set[str]:
        """Names of parameters, below this module, that weight decay should leave alone."""
        groups = {"map": self.map, **{f"inside.{kind}": group for kind, group in self.inside.items()}}
        return {f"{name}.{key}" for name, group in groups.items() for key in group.no_weight_decay()}  # type: ignore
