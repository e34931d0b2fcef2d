"""Files of points and meshes (``.ply``), with an error that says where a bad one is bad."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from visionpe.utils.errors import InputError, first_line

WHOLE: dict[str, Any] = {
    "char": np.int8, "uchar": np.uint8, "short": np.int16, "ushort": np.uint16, "int": np.int32, "uint": np.uint32,
    "int8": np.int8, "uint8": np.uint8, "int16": np.int16, "uint16": np.uint16, "int32": np.int32, "uint32": np.uint32,
}  # fmt: skip


@dataclass
class PlyHeader:
    """The head of a file.

    Args:
        ascii: Whether the numbers are text.
        lines: Of the head itself.
        elements: Name, number of rows and properties (type, name) of each element; a list has the type ``list``.
    """

    ascii: bool
    lines: int
    elements: list[tuple[str, int, list[tuple[str, str]]]]

    def place(self, element: str, row: int) -> str:
        """Where a row stands: ``line 12``, or ``vertex 3`` where the numbers are no text."""
        if not self.ascii:
            return f"{element} {row}"
        before = 0
        for name, count, _ in self.elements:
            if name == element:
                break
            before += count
        return f"line {self.lines + before + row + 1}"


def read_header(path: Path) -> PlyHeader:
    """The head of a file that plyfile could read.

    Raises:
        ValueError: If it has none.
    """
    header = PlyHeader(False, 0, [])
    with path.open("rb") as file:
        for line in file:
            header.lines += 1
            words = line.decode("ascii", "replace").split()
            if words[:1] == ["format"]:
                header.ascii = words[1:2] == ["ascii"]
            elif words[:1] == ["element"]:
                header.elements.append((words[1], int(words[2]), []))
            elif words[:1] == ["property"] and header.elements:
                header.elements[-1][2].append((words[1], words[-1]))
            elif words == ["end_header"]:
                return header
    raise ValueError("no end_header")


def _out_of_range(path: Path) -> str:
    """The first number of a text file that its type does not hold."""
    header = read_header(path)
    with path.open("rb") as file:
        rows = iter(file.read().split(b"\n")[header.lines :])
    for name, count, properties in header.elements:
        for row in range(count):
            for (kind, key), word in zip(properties, next(rows, b"").split()):
                if kind == "list":
                    break
                limits = np.iinfo(WHOLE[kind]) if kind in WHOLE else None
                if limits is not None and not limits.min <= int(word) <= limits.max:
                    at = header.place(name, row)
                    return f"{at}: {key} is {int(word)}; allowed for {kind}: {limits.min} to {limits.max}"
    return "a number is out of the range of its type"


def read_ply(path: str | Path, known_list_len: Mapping[str, Mapping[str, int]] | None = None) -> Any:
    """Read a file, binary or text.

    Args:
        path: The file.
        known_list_len: Lengths of lists that are the same in every row, for speed, as plyfile has it.

    Returns:
        plyfile's ``PlyData``.

    Raises:
        InputError: If it cannot be read. The message says where, and does not name the file.
        ModuleNotFoundError: If plyfile is not installed.
    """
    from plyfile import PlyData, PlyElementParseError, PlyHeaderParseError

    path = Path(path)
    if not path.is_file():
        raise InputError("no such file")
    if not path.stat().st_size:
        raise InputError("is empty")
    try:
        return PlyData.read(str(path), known_list_len=known_list_len or {})
    except PlyHeaderParseError as error:
        raise InputError(f"is no ply ({error})") from None
    except UnicodeDecodeError:
        raise InputError("is no ply, or its head is not ASCII") from None
    except PlyElementParseError as error:
        element, row = getattr(error.element, "name", "element"), error.row or 0
        if error.message == "early end-of-file":
            raise InputError(f"is cut off at {element} {row}") from None
        value = "" if error.prop is None else f", {error.prop.name}"
        raise InputError(f"{read_header(path).place(element, row)}: {error.message} ({element} {row}{value})") from None
    except OverflowError:
        raise InputError(_out_of_range(path)) from None
    except (ValueError, OSError) as error:
        raise InputError(f"cannot be read ({first_line(error, 80)})") from None
