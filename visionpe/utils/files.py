"""Files that are written whole or not at all, and places that are looked at before the work."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

from visionpe.utils.errors import InputError

# Of this machine and process: what a killed process left is known by it.
_HOST = f"{crc32(socket.gethostname().encode()):08x}"
_TEMPORARY = re.compile(r"\..*\.([0-9a-f]{8})-(\d+)-\w+\.partial")
_SWEPT: set[Path] = set()
FULL = 2**16  # bytes left below which a disk counts as full


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def sweep(folder: Path) -> None:
    """Remove what killed processes of this machine left half written in a folder; others' work is let be."""
    if sys.platform == "win32" or folder in _SWEPT:  # os.kill ends processes there
        return
    _SWEPT.add(folder)
    with contextlib.suppress(OSError):
        for file in folder.iterdir():
            match = _TEMPORARY.fullmatch(file.name)
            if match and match[1] == _HOST and not _is_alive(int(match[2])):
                file.unlink(missing_ok=True)


@contextmanager
def replacing(path: str | Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its name when the block ends well, and is removed when it does not.

    A reader, or a crash, meets the old content or the new but never a part. What earlier processes left half written in
    this folder, because they were killed, is removed.

    Args:
        path: The file; its directory is made if missing.
        durable: Wait until it is on the disk, milliseconds, so that a power cut leaves no empty file either.

    Raises:
        OSError: If it cannot be written, with its name; also for a full disk that a library reports in its own way.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        start = f".{path.name[:160]}.{_HOST}-{os.getpid()}-"
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=start, suffix=".partial")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    os.close(handle)
    try:
        yield Path(name)
        if durable:
            with open(name, "rb") as file:
                os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp makes it private
        os.replace(name, path)
    except BaseException as error:
        full = isinstance(error, Exception) and shutil.disk_usage(path.parent).free < FULL
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, name):
            raise OSError(error.errno, error.strerror, str(path)) from error
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


def write_atomic(path: str | Path, content: str | bytes, *, durable: bool = True) -> None:
    """Write a file so that a reader, or a crash, meets the old content or the new but never a part.

    Args:
        path: Its directory is made if missing.
        content: Text (UTF-8) or bytes.
        durable: See :func:`replacing`.

    Raises:
        OSError: If it cannot be written.
    """
    with replacing(path, durable=durable) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def special(path: Path) -> str:
    """What a path is that exists and is neither a file nor a folder; reading it might wait forever."""
    mode = path.stat().st_mode
    return "a named pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"


def check_output(path: str | Path, flag: str, *, folder: bool = False) -> None:
    """Find out before the work that its result could not be written.

    Args:
        path: Of a file, or of a folder that will hold files. Nothing is made.
        flag: What it was given by, for the message.
        folder: It is a folder.

    Raises:
        InputError: If something else is in the way or there is no right to write.
    """
    path = Path(path)
    if folder and path.exists() and not path.is_dir():
        raise InputError(f"{flag} {path}: is a file; give a folder")
    if not folder and path.is_dir():
        raise InputError(f"{flag} {path}: is a folder; give a file")
    place = path if folder else path.parent
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise InputError(f"{flag} {path}: {place} is a file; give another place")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"{flag} {path}: there is no right to write in {place}; give another place")
