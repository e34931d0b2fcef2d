"""One program at a time in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from visionpe.utils.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(folder: str | Path, what: str, flag: str = "--out") -> Iterator[None]:
    """Hold a folder for one kind of work; the system lets go of it when this process ends, however it ends.

    Args:
        folder: Made if missing, and removed again if nothing came into it.
        what: The work, such as ``training``: others may go on in the same folder.
        flag: What the folder was given by, for the message.

    Raises:
        InputError: If another process is at it.
    """
    folder = Path(folder)
    file = folder / f".{what.replace(' ', '_')}.lock"
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = file.open("a+")
    except OSError as error:
        raise InputError(f"{flag} {folder}: cannot be written to ({error.strerror})") from None
    with opened as handle:
        if fcntl is None:
            yield
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            other = handle.read().strip()
            which = f" (process {other})" if other else ""
            raise InputError(
                f"{flag} {folder}: another {what} is at work there{which}; wait for it, end it, or give another folder"
            ) from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        try:
            yield
        finally:
            file.unlink(missing_ok=True)  # while it is held: whoever opened it since finds another file
            if made:
                with suppress(OSError):  # it holds results
                    folder.rmdir()
