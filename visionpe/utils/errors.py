"""The one error that the command line turns into a single line and exit code 2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


class InputError(ValueError):
    """What the user gave cannot be used; the message says which argument, what was given and what is allowed."""


class MissingFileError(InputError, FileNotFoundError):
    """A file that is named does not exist; a FileNotFoundError too, as Python's own is."""


class MisfitError(ValueError, RuntimeError):
    """Weights that do not fit a model; a RuntimeError too, as torch's own is."""


class IncompleteError(Exception):
    """The work is done but for some parts that failed; what is there was written. Exit code 1."""


def first_line(error: BaseException, limit: int = 200) -> str:
    """The gist of an exception on one line.

    Args:
        error: Any exception.
        limit: Most characters to return.

    Returns:
        The first two non-empty lines of its message, joined, or the name of its type where it has no message.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:2]) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def first_few(items: Sequence[str], most: int = 3, separator: str = ", ") -> str:
    """The first ``most`` items, joined, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return separator.join(items[:most]) + more


@contextmanager
def plain_worker_errors() -> Iterator[None]:
    """An :class:`InputError` of a worker that loads data, raised inside, without the traceback in its message.

    Raises:
        InputError: With the line that the worker ended with.
    """
    try:
        yield
    except InputError as error:
        if not (text := str(error)).startswith("Caught "):
            raise
        # PyTorch makes the traceback the message; its last line is "module.Class: message".
        raise InputError(text.strip().splitlines()[-1].partition(": ")[2]) from None


def check_seed(seed: int | None, flag: str = "--seed") -> None:
    """Refuse what numpy does not take as a seed; None is allowed.

    Args:
        seed: The seed.
        flag: What it was given by, for the message.

    Raises:
        InputError: If it is below 0, or of more than 32 bits.
    """
    if seed is not None and not 0 <= seed < 2**32:
        raise InputError(f"{flag} {seed}: must be 0 to {2**32 - 1}")


def check_counts(args: Any, *names: str) -> None:
    """Refuse counts below one.

    Args:
        args: Holds them by name; None is allowed.
        names: Of the counts, as on the command line.

    Raises:
        InputError: Naming the first of them.
    """
    for name in names:
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} {value}: must be at least 1")
