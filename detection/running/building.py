"""What cannot be built from a config is the config's fault: one line that says which part, and why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from mmengine.registry import build_from_cfg

from visionpe.utils.errors import InputError, first_line

# What constructors raise over their arguments, and registries over names.
FAULTS = (TypeError, ValueError, KeyError, AttributeError, AssertionError, RuntimeError, ZeroDivisionError)


def _part(traceback: TracebackType | None) -> str | None:
    """The innermost part of a config that was being built; None where none was."""
    found: str | None = None
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code is build_from_cfg.__code__:
            config = frame.f_locals.get("cfg")
            kind = config.get("type") if isinstance(config, dict) else config
            found = str(getattr(kind, "__name__", kind))
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
        what = f"type={part!r} cannot be built" if part else "cannot be used"
        raise InputError(f"config{f' {name}' if name else ''}: {what}: {reason}") from error
