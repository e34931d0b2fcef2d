"""Tables of the places in a window: which window they are of, and whether a model resizes them on loading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from visionpe.base import PositionEncoding
from visionpe.utils.weight_files import StateDict


def tables_of(part: PositionEncoding, prefix: str, state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of the tables of an encoding that loading resizes, by their names below ``prefix`` in a state dict."""
    names = {key: f"{prefix}{key}" for key in part.resized_on_load}
    return {key: tuple(state[name].shape) for key, name in names.items() if name in state}


def window_of(part: PositionEncoding, shapes: Mapping[str, Sequence[int]]) -> tuple[int, ...] | None:
    """Height and width of the window that tables of these shapes are of, tokens; None of tables of another kind."""
    if "table" in shapes:
        last = shapes["table"][-2:]  # over all offsets, or over absolute ones
        return tuple(last) if part.name == "attention_bias" else tuple((n + 1) // 2 for n in last)
    if {"height_table", "width_table"} <= shapes.keys():
        return tuple((shapes[f"{axis}_table"][-2] + 1) // 2 for axis in ("height", "width"))
    return None


def take_window_tables(state: StateDict, model: Any) -> None:
    """Where windows grow with the map, give tables the size of a file's: resized, they would lose what it holds.

    Args:
        state: The file in our layout.
        model: Its stages tell by ``windows_grow`` whether theirs do.
    """
    if not any(stage.windows_grow for stage in model.stages):
        return
    own = model.state_dict()
    for i, stage in enumerate(model.stages):
        for kind, group in stage.pos_encoding.inside.items() if stage.windows_grow else ():
            for part in group.parts:
                prefix = f"stages.{i}.pos_encoding.inside.{kind}.{part.name}."
                before, now = (window_of(part, tables_of(part, prefix, each)) for each in (own, state))
                if now is not None and now != before:
                    part.set_input_grid(now)
