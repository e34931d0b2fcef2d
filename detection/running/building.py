"""What cannot be built from a config is the config's fault: one line that says which part, and why."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from types import TracebackType
from typing import Any

from mmengine.registry import build_from_cfg
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner, TestLoop, ValLoop

from visionpe.utils.errors import InputError, first_line

# What constructors raise over their arguments, and registries over names.
FAULTS = (TypeError, ValueError, KeyError, AttributeError, AssertionError, RuntimeError, ZeroDivisionError)


# Where mmengine builds a loop without a ``type``: for training by epochs, and by iterations.
LOOPS: dict[Any, tuple[type, type]] = {
    Runner.build_train_loop.__code__: (EpochBasedTrainLoop, IterBasedTrainLoop),
    Runner.build_val_loop.__code__: (ValLoop, ValLoop),
    Runner.build_test_loop.__code__: (TestLoop, TestLoop),
}
UNKNOWN = re.compile(r"keyword (?:argument )?'(\w+)'$")  # in Python's words, and in ours


def _hint(reason: str, kind: str, variables: dict[str, Any]) -> str:
    """The keyword, or the type, that was meant; of the variables of the innermost ``build_from_cfg``."""
    if unknown := UNKNOWN.search(reason):
        built = variables.get("obj_cls")
        kinds = built.__mro__ if inspect.isclass(built) else ()
        makers = [vars(each)["__init__"] for each in kinds if "__init__" in vars(each)] or [built]
        known = [name for maker in makers if inspect.isfunction(maker) for name in inspect.signature(maker).parameters]
        near = get_close_matches(unknown[1], known, n=1)
    elif "is not in the" in reason and (registry := variables.get("registry")):
        names = [name for each in (registry, registry.root) for name in each.module_dict]
        near = get_close_matches(kind, names, n=1, cutoff=0.8)
    else:
        near = []
    return f"; did you mean {near[0]}?" if near else ""


def _part(traceback: TracebackType | None) -> tuple[str, dict[str, Any]] | None:
    """The innermost part of a config that was being built, and the variables there; None where none was."""
    found: tuple[str, dict[str, Any]] | None = None
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code is build_from_cfg.__code__:
            config = frame.f_locals.get("cfg")
            kind = config.get("type") if isinstance(config, dict) else config
            found = str(getattr(kind, "__name__", kind)), frame.f_locals
        elif frame.f_code in LOOPS:
            loop = LOOPS[frame.f_code][not frame.f_locals.get("by_epoch")]
            found = loop.__name__, {"obj_cls": loop}
        traceback = traceback.tb_next
    return found


@contextmanager
def clear_builds(config: Any, *, whole: bool = False) -> Iterator[None]:
    """Building from a config inside ends in one clear error.

    Args:
        config: The config, for its file's name.
        whole: Nothing but building is done inside.

    Raises:
        InputError: Names the innermost part that could not be built, and why.
    """
    try:
        yield
    except InputError:
        raise
    except FAULTS as error:
        part = _part(error.__traceback__)
        if part is None and not whole:
            raise
        reason = error.args[0] if isinstance(error, KeyError) and error.args else first_line(error)
        reason = str(reason).partition(". Please check")[0] or type(error).__name__
        name = getattr(config, "filename", None)
        what = f"type={part[0]!r} cannot be built" if part else "cannot be used"
        hint = _hint(reason, *part) if part else ""
        raise InputError(f"config{f' {name}' if name else ''}: {what}: {reason}{hint}") from error
